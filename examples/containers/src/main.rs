//! The ECUs of a small car: each is a container, and none knows anything of containers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socketcan::{CanFrame, CanSocket, EmbeddedFrame as _, Id, Socket as _, StandardId};

/// Revolutions a minute, 16 bits, from the engine every 10 ms.
const RPM: u16 = 0x0C8;
/// Speed in units of 0.01 km/h, 16 bits, from the brakes every 20 ms.
const SPEED: u16 = 0x1A0;
/// From the doors every 100 ms: whether they are locked.
const DOORS: u16 = 0x320;
/// From here on, in km/h, doors lock.
const LOCK_ABOVE: f64 = 20.0;
/// Where the dashboard shows what it shows to whoever connects.
const DISPLAY: &str = "0.0.0.0:8080";
/// The control socket of the host's cangwd.
const CONTROL: &str = "/run/cangw/cangwd.sock";

/// An ECU of a small car.
#[derive(Parser)]
struct Options {
    /// Which one
    ecu: Ecu,
    /// Its CAN interface
    #[arg(default_value = "can0")]
    interface: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ecu {
    /// Sends its revolutions
    Engine,
    /// Sends the speed
    Brakes,
    /// Locks itself when the car drives, and says so
    Doors,
    /// Listens, prints what it hears, and shows it at TCP port 8080
    Dashboard,
    /// Lets the host's cangwd lead revolutions and speed from one bus to the other, until it is told to end
    Gateway,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if matches!(options.ecu, Ecu::Gateway) {
        return gateway();
    }
    let name = &options.interface;
    let socket = CanSocket::open(name).with_context(|| format!("cannot open {name}"))?;
    match options.ecu {
        Ecu::Engine => drive(&socket, RPM, Duration::from_millis(10), |t| {
            (2500.0 + 1700.0 * wave(t)) as u16
        }),
        Ecu::Brakes => drive(&socket, SPEED, Duration::from_millis(20), |t| {
            (100.0 * (60.0 + 55.0 * wave(t))) as u16
        }),
        Ecu::Doors => doors(&socket),
        Ecu::Dashboard => dashboard(&socket),
        Ecu::Gateway => Ok(()),
    }
}

/// Asks the host's cangwd (docs/api.md): the rules are in the kernel, and go on without this program.
fn gateway() -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let rule = format!(
        r#"{{"source": "powertrain0", "target": "body0", "id": ["{RPM:03X}", "{SPEED:03X}"]}}"#
    );
    ask(&format!(
        r#"{{"id": "rule_add", "data": {{"document": {{"version": 1, "rule": [{rule}]}}}}}}"#
    ))?;
    println!("powertrain0 -> body0: {RPM:03X}, {SPEED:03X}");
    signals.forever().next();
    ask(&format!(
        r#"{{"id": "rule_delete", "data": {{"rule": {rule}}}}}"#
    ))
}

/// Makes a request, which is to succeed.
fn ask(request: &str) -> Result<()> {
    let mut stream = UnixStream::connect(CONTROL)
        .with_context(|| format!("cannot reach cangwd at {CONTROL}"))?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if !answer.contains(r#""success":true"#) {
        bail!("cangwd: {}", answer.trim());
    }
    Ok(())
}

/// Between -1 and 1, once in ten seconds.
fn wave(seconds: f64) -> f64 {
    (seconds * std::f64::consts::TAU / 10.0).sin()
}

fn send(socket: &CanSocket, id: u16, data: &[u8]) -> Result<()> {
    let id = StandardId::new(id).context("an identifier has 11 bits")?;
    let frame = CanFrame::new(id, data).context("a frame has 8 bytes at most")?;
    socket.write_frame(&frame).context("cannot send")
}

/// Sends a value over and over.
fn drive(socket: &CanSocket, id: u16, period: Duration, value: impl Fn(f64) -> u16) -> Result<()> {
    let begin = Instant::now();
    loop {
        send(
            socket,
            id,
            &value(begin.elapsed().as_secs_f64()).to_be_bytes(),
        )?;
        thread::sleep(period);
    }
}

/// The identifier and the data of the next frame that is a standard one.
fn receive(socket: &CanSocket) -> Result<(u16, Vec<u8>)> {
    loop {
        let frame = socket.read_frame().context("cannot receive")?;
        if let Id::Standard(id) = frame.id() {
            return Ok((id.as_raw(), frame.data().to_vec()));
        }
    }
}

fn number(data: &[u8]) -> f64 {
    let bytes = data.get(..2).and_then(|bytes| bytes.try_into().ok());
    f64::from(bytes.map_or(0, u16::from_be_bytes))
}

fn doors(socket: &CanSocket) -> Result<()> {
    let mut said = Instant::now();
    let mut locked = false;
    loop {
        let (id, data) = receive(socket)?;
        if id == SPEED {
            locked = number(&data) / 100.0 > LOCK_ABOVE;
        }
        if said.elapsed() >= Duration::from_millis(100) {
            said = Instant::now();
            send(socket, DOORS, &[u8::from(locked)])?;
        }
    }
}

fn dashboard(socket: &CanSocket) -> Result<()> {
    let shown = Arc::new(Mutex::new(String::from("nothing yet")));
    let display =
        TcpListener::bind(DISPLAY).with_context(|| format!("cannot listen at {DISPLAY}"))?;
    let for_display = Arc::clone(&shown);
    thread::spawn(move || {
        for mut reader in display.incoming().flatten() {
            let text = for_display
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            // Whoever is gone needs nothing.
            let _ = writeln!(reader, "{text}");
        }
    });
    let (mut rpm, mut speed, mut locked) = (0.0, 0.0, None);
    let mut printed = Instant::now();
    loop {
        let (id, data) = receive(socket)?;
        match id {
            RPM => rpm = number(&data),
            SPEED => speed = number(&data) / 100.0,
            DOORS => locked = data.first().map(|byte| *byte != 0),
            _ => {}
        }
        let doors = match locked {
            None => "unknown",
            Some(true) => "locked",
            Some(false) => "open",
        };
        let text = format!("{rpm:4.0} rpm  {speed:5.1} km/h  doors {doors}");
        if printed.elapsed() >= Duration::from_secs(1) {
            printed = Instant::now();
            println!("{text}");
        }
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

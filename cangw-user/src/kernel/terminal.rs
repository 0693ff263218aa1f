//! The terminal of this process: its size, its keys, and stopping it as a shell expects.

use std::io::{self, IsTerminal as _, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, RawFd};

/// Columns and rows of the terminal behind standard output; `None` when there is none, or it has no size.
#[must_use]
pub fn size() -> Option<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let output = io::stdout().as_raw_fd();
    // SAFETY: TIOCGWINSZ writes one winsize, and `size` is one that lives for the call. What the descriptor is does not matter:
    // nothing but a terminal knows this request.
    if unsafe { libc::ioctl(output, libc::TIOCGWINSZ, &raw mut size) } != 0 {
        return None;
    }
    (size.ws_col > 0 && size.ws_row > 0)
        .then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Keys come one by one and are not shown, until this is dropped.
pub struct Keys {
    input: RawFd,
    before: libc::termios,
}

impl Keys {
    /// Takes the keys of the terminal behind standard input; `None` when that is something else, or does not let itself be set.
    ///
    /// A process in the background stops here until it is in the foreground, as it does when it changes any terminal.
    #[must_use]
    pub fn take() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let input = stdin.as_raw_fd();
        let mut before = MaybeUninit::uninit();
        // SAFETY: tcgetattr writes one termios, and `before` has room for one and lives for the call.
        if unsafe { libc::tcgetattr(input, before.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: tcgetattr returned 0, so it wrote the whole termios.
        let before: libc::termios = unsafe { before.assume_init() };
        let mut taken = before;
        taken.c_lflag &= !(libc::ICANON | libc::ECHO);
        // Reading returns what is there, which can be nothing.
        taken.c_cc[libc::VMIN] = 0;
        taken.c_cc[libc::VTIME] = 0;
        set(input, libc::TCSADRAIN, &taken).then_some(Self { input, before })
    }

    /// The keys that were pressed since the last call. It does not wait for one.
    #[must_use]
    pub fn pressed(&self) -> Vec<u8> {
        let mut keys = [0; 64];
        // A terminal that cannot be read any more has no keys.
        let count = io::stdin().lock().read(&mut keys).unwrap_or(0);
        keys[..count].to_vec()
    }
}

impl Drop for Keys {
    /// Forgets the keys that nobody read: they were not meant for the program that comes next.
    fn drop(&mut self) {
        set(self.input, libc::TCSAFLUSH, &self.before);
    }
}

fn set(terminal: RawFd, when: i32, modes: &libc::termios) -> bool {
    // SAFETY: tcsetattr reads one termios, and `modes` is a reference to one.
    unsafe { libc::tcsetattr(terminal, when, modes) == 0 }
}

/// Does what Ctrl-Z does to a process that does not handle it, and returns when that is continued: it stops, unless there is no shell that
/// could continue it. Whatever handled Ctrl-Z does so again afterwards.
pub fn stop() {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a sigaction is integers, and an optional function that is none when it is 0.
    let mut usual: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    usual.sa_sigaction = libc::SIG_DFL;
    // SAFETY: both structures live for the call, which reads one and writes the other. The default action is no function of this process.
    if unsafe { libc::sigaction(libc::SIGTSTP, &raw const usual, before.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the default action of a signal is the kernel's, and runs nothing in this process. Then the handler is put back that sigaction
    // has written to `before`, because it returned 0; it was fit to be one before.
    unsafe {
        libc::raise(libc::SIGTSTP);
        libc::sigaction(libc::SIGTSTP, before.as_ptr(), std::ptr::null_mut());
    }
}

//! The daemon of the CAN gateway.

use std::env;
use std::process::ExitCode;

use cangw::federation::RUNTIME;

fn main() -> ExitCode {
    let (variable, value) = RUNTIME;
    // SAFETY: this is the first that the process does: no other thread is there that could read its environment.
    unsafe { env::set_var(variable, value) };
    cangw::cli::daemon::main()
}

//! The daemon of the CAN gateway.

fn main() -> std::process::ExitCode {
    cangw::cli::daemon::main()
}

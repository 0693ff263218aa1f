//! The command line of the CAN gateway: a drop-in for can-utils' cangw, and more.

fn main() -> std::process::ExitCode {
    cangw::cli::main()
}

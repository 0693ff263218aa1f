//! The plugin of Podman, which netavark calls.

fn main() -> std::process::ExitCode {
    cangw::containers::netavark::main()
}

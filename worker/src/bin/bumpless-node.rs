//! The worker.
fn main() -> std::process::ExitCode {
    bumpless_worker::command::main(std::env::args())
}

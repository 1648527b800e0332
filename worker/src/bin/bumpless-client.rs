//! The command `bumpless-client`; all of it is in the library.

fn main() -> std::process::ExitCode {
    bumpless_worker::client::command::run()
}

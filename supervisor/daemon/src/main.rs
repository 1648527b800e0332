//! `bumplessd`.
fn main() -> std::process::ExitCode {
    bumplessd::run()
}

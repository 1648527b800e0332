//! `bumpless-fetch`: fetches one bounded file.

fn main() -> std::process::ExitCode {
    bumpless_fetch::run()
}

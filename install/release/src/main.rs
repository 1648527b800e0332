//! `bumpless-release`: makes and signs feeds.

fn main() -> std::process::ExitCode {
    bumpless_release::command::run()
}

//! `cargo demo`: see [`bumpless_tests::demo`].

fn main() -> std::process::ExitCode {
    bumpless_tests::demo::main()
}

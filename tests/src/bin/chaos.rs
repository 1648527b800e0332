//! `cargo chaos`; all of it is in [`bumpless_tests::chaos`].

fn main() -> std::process::ExitCode {
    bumpless_tests::chaos::main()
}

//! `cargo model`; all of it is in [`bumpless_tests::model`].

fn main() -> std::process::ExitCode {
    bumpless_tests::model::main()
}

//! `cargo handover`; all of it is in [`bumpless_tests::handover`].

fn main() -> std::process::ExitCode {
    bumpless_tests::handover::main()
}

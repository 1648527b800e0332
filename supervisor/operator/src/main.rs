//! `bumpless`: see the library.
fn main() -> std::process::ExitCode {
    bumpless::main()
}

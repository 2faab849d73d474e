//! The operator's tool. Everything is in [`control::cli`].

fn main() -> std::process::ExitCode {
    control::cli::main()
}

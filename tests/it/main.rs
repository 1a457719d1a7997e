//! One binary for all end-to-end tests, so that a test that lacks Java or data is counted as ignored, by name.

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, Vec::new()).exit();
}

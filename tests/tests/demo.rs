//! `sync-client demo`, the first thing anyone types: it works, proves its copy, and leaves nothing behind.

use std::fs;
use tests::process;
use tests::sandbox::Sandbox;

#[test]
fn the_demo_proves_its_copy_and_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let place = sandbox.path().join("place");
    fs::create_dir(&place).expect("a new directory");
    let mut command = sandbox.client_command(["demo"]);
    command.env("TMPDIR", &place);
    let output = process::run(command);
    output.success();
    assert_eq!(output.stdout_text().matches("identical:").count(), 2, "{output}");
    assert_eq!(fs::read_dir(&place).expect("it is there").count(), 0, "{output}");
}

//! `key`: a pair made, its restricted line at a real sshd, and both taken away again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tests::process::{self, Output};
use tests::requirement::installed;
use tests::sandbox::Sandbox;
use tests::sshd::{Options, Sshd};

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn beside(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", path.display()))
}

fn key(sandbox: &Sandbox, command: &str, path: &Path, arguments: &[&str]) -> Output {
    let path = path.to_str().expect("ASCII");
    sandbox.client(["key", command, "--file", path].into_iter().chain(arguments.iter().copied()))
}

/// What ssh-keygen says of a key: its own opinion of our files.
fn keygen(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let mut command = sandbox.command(installed("ssh-keygen"));
    command.args(arguments);
    process::run(command).success().stdout_text()
}

#[test]
fn openssh_reads_a_new_key_of_either_type() {
    tests::require!("ssh-keygen");
    let sandbox = Sandbox::new();
    for (kind, bits, name) in [("ed25519", "256", "(ED25519)"), ("rsa-4096", "4096", "(RSA)")] {
        let path = sandbox.path().join(kind);
        key(&sandbox, "new", &path, &["--type", kind, "--comment", "for the move"]).success();
        assert_eq!((mode(&path), mode(&beside(&path))), (0o600, 0o644));
        let public = text(&beside(&path));
        let listed = keygen(&sandbox, &["-l", "-f", path.to_str().expect("ASCII")]);
        assert!(listed.starts_with(bits) && listed.trim_end().ends_with(name), "{listed}");
        assert_eq!(keygen(&sandbox, &["-l", "-f", beside(&path).to_str().expect("ASCII")]), listed);
        assert_eq!(keygen(&sandbox, &["-y", "-P", "", "-f", path.to_str().expect("ASCII")]), public);
        assert!(public.ends_with(" for the move\n"), "{public}");
    }
}

#[test]
fn a_new_key_takes_nobodys_place() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("key");
    key(&sandbox, "new", &path, &[]).success();
    let before = (text(&path), text(&beside(&path)));
    key(&sandbox, "new", &path, &[]).expect_code(46).expect_stderr("is there already");
    fs::remove_file(&path).expect("the file is ours");
    key(&sandbox, "new", &path, &[]).expect_code(46).expect_stderr("key.pub is there already");
    assert!(!path.exists() && text(&beside(&path)) == before.1);
    let other = sandbox.path().join("other");
    key(&sandbox, "new", &other, &["--comment", "a\nb"]).expect_code(1);
    key(&sandbox, "new", &other, &["--type", "dsa"]).expect_code(1);
    key(&sandbox, "new", &other, &["--passphrase"]).expect_code(46).expect_stderr("no terminal");
    assert!(!other.exists());
}

#[test]
fn without_a_file_the_key_is_kept_in_the_home() {
    let sandbox = Sandbox::new();
    sandbox.client(["key", "new"]).success();
    let path = sandbox.home().join(".ssh/sync-client");
    assert_eq!(mode(&path), 0o600);
    let line = sandbox.client([
        "key",
        "show",
        "--root",
        "/srv/data",
        "--from",
        "192.0.2.1",
        "--from",
        "2001:db8::/32",
    ]);
    let public = text(&beside(&path));
    assert_eq!(
        line.success().stdout_text(),
        format!(
            "restrict,from=\"192.0.2.1,2001:db8::/32\",command=\"sync-agent --stdio --read-only --root /srv/data\" {public}"
        )
    );
    sandbox.client(["key", "show"]).expect_code(1);
    sandbox.client(["key", "show", "--root", "srv"]).expect_code(1).expect_stderr("not absolute");
    sandbox.client(["key", "show", "--root", "/srv", "--from", "a b"]).expect_code(1);
    fs::remove_file(&path).expect("the file is ours");
    assert_eq!(
        sandbox.client(["key", "show", "--command", "true"]).success().stdout_text(),
        format!("restrict,command=\"true\" {public}")
    );
}

/// A server that lets in the key at `path` by the line that `key show` prints for this root.
fn server(sandbox: &Sandbox, path: &Path, root: &Path, from: &str) -> Sshd {
    let root = root.to_str().expect("UTF-8");
    let line = key(sandbox, "show", path, &["--root", root, "--from", from]).success().stdout_text();
    let options = Options { authorized_keys: Some(line), ..Options::default() };
    Sshd::start_with(sandbox, &options)
}

fn pull(sandbox: &Sandbox, sshd: &Sshd, path: &Path, from: &str) -> Output {
    let shell = format!("{} -o IdentitiesOnly=yes", sshd.remote_shell());
    let shell = shell.replace(sandbox.key().to_str().expect("ASCII"), path.to_str().expect("ASCII"));
    let destination = format!("{}/", sandbox.destination().display());
    sandbox.sync(["-a", "-e", &shell, &sshd.address().host_path(from), &destination])
}

#[test]
fn the_line_lets_the_key_read_its_root_and_nothing_else() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("key");
    key(&sandbox, "new", &path, &[]).success();
    fs::write(sandbox.path().join("outside"), "secret").expect("a new file");
    for name in ["data", "my data", "it's \"$HOME\" & `id` \\ é"] {
        let root = sandbox.path().join(name);
        fs::create_dir(&root).expect("a new directory");
        fs::write(root.join("file"), name).expect("a new file");
        std::os::unix::fs::symlink("../outside", root.join("link")).expect("a new link");
        let sshd = server(&sandbox, &path, &root, "127.0.0.1");
        pull(&sandbox, &sshd, &path, "/").success();
        assert_eq!(text(&sandbox.destination().join("file")), name);
        for outside in ["/../outside", "../outside", "/link/../../outside"] {
            let refused = pull(&sandbox, &sshd, &path, outside);
            assert_ne!(refused.code(), 0, "{refused}");
        }
        // Whatever command the client asks for, the line's runs: this writes nothing there.
        let shell = sshd
            .remote_shell()
            .replace(sandbox.key().to_str().expect("ASCII"), path.to_str().expect("ASCII"));
        let back = sandbox.sync([
            "-a",
            "-e",
            &shell,
            &format!("{}/", sandbox.home().display()),
            &sshd.address().host_path("/"),
        ]);
        back.expect_code(5);
        assert!(!root.join("known_hosts").exists() && !sandbox.destination().join("outside").exists());
    }
}

#[test]
fn the_line_lets_nobody_in_from_another_address() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("key");
    key(&sandbox, "new", &path, &[]).success();
    let sshd = server(&sandbox, &path, &sandbox.source(), "192.0.2.1");
    pull(&sandbox, &sshd, &path, "/").expect_code(42);
}

#[test]
fn remove_takes_the_pair_and_its_lines_and_keeps_every_other_byte() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("key");
    key(&sandbox, "new", &path, &[]).success();
    let line = key(&sandbox, "show", &path, &["--root", "/srv/my data"]).success().stdout_text();
    let (before, after) = ("# keys\r\n\nssh-ed25519 AAAAother admin\n", "ssh-rsa AAAAlast no newline");
    let list = sandbox.path().join("authorized_keys");
    let all = format!("{before}{line}{}{after}", text(&beside(&path)));
    fs::write(&list, &all).expect("a new file");
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    let list_name = list.to_str().expect("ASCII").to_owned();
    let remove =
        |more: &[&str]| key(&sandbox, "remove", &path, &[&["--authorized-keys", &list_name], more].concat());
    remove(&["--dry-run"]).success();
    remove(&[]).expect_code(46).expect_stderr("give --yes");
    assert!(path.exists() && beside(&path).exists() && text(&list) == all);
    let blob = text(&beside(&path)).split(' ').nth(1).expect("type, key, comment").to_owned();
    let output = remove(&["--yes"]);
    assert!(output.success().stdout_text().contains(&blob), "what to delete elsewhere is said\n{output}");
    assert!(!path.exists() && !beside(&path).exists());
    assert_eq!((text(&list), mode(&list)), (format!("{before}{after}"), 0o600));
    remove(&["--yes"]).expect_code(3);
}

#[test]
fn remove_deletes_nothing_that_is_no_key() {
    let sandbox = Sandbox::new();
    let path = sandbox.path().join("precious");
    fs::write(&path, "not a key").expect("a new file");
    key(&sandbox, "remove", &path, &["--yes"]).expect_code(3).expect_stderr("is not an SSH key");
    key(&sandbox, "remove", sandbox.path(), &["--yes"]).expect_code(3);
    assert_eq!(text(&path), "not a key");
    sandbox.client(["key", "remove", "--yes"]).expect_code(1);
}

#[test]
fn remove_takes_no_other_keys_half_and_leaves_no_private_one_behind() {
    let sandbox = Sandbox::new();
    let (path, other, link) =
        (sandbox.path().join("key"), sandbox.path().join("other"), sandbox.path().join("link"));
    key(&sandbox, "new", &path, &[]).success();
    key(&sandbox, "new", &other, &[]).success();
    std::os::unix::fs::symlink(&path, &link).expect("a new link");
    key(&sandbox, "remove", &link, &["--yes"]).expect_code(3).expect_stderr("is a symbolic link");
    key(&sandbox, "remove", &beside(&path), &["--yes"]).expect_code(3).expect_stderr("name the private one");
    fs::copy(beside(&other), beside(&path)).expect("the files are ours");
    key(&sandbox, "remove", &path, &["--yes"]).success();
    assert!(!path.exists() && text(&beside(&path)) == text(&beside(&other)));
    fs::remove_file(&other).expect("the file is ours");
    key(&sandbox, "remove", &other, &["--yes"]).success();
    assert!(!beside(&other).exists());
}

//! What is known of the old file makes a run short, and never wrong.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tests::mount::Image;
use tests::process::{Output, until};
use tests::sandbox::Sandbox;
use tests::seed::Rng;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::sshd::Sshd;
use tests::tree::write_at;

const FILE_BYTES: usize = 80 << 20;
const PAGE: u64 = 4096;

/// A large file at both ends, as a run left it.
struct Series {
    sandbox: Sandbox,
    round: i64,
}

impl Series {
    fn begin() -> Series {
        let series = Series { sandbox: Sandbox::new(), round: 0 };
        write_at(&series.from(), &Rng::new(1).bytes(FILE_BYTES), 1_600_000_000);
        series.pass(&[]);
        series
    }

    fn from(&self) -> PathBuf {
        self.sandbox.source().join("file")
    }

    fn to(&self) -> PathBuf {
        self.sandbox.destination().join("file")
    }

    /// Changes bytes of the source's file, whose time is another one after.
    fn change(&mut self, at: u64, bytes: &[u8]) {
        write_into(&self.from(), at, bytes);
        self.round += 1;
        tests::tree::set_mtime(&self.from(), 1_600_000_000 + self.round, 0);
    }

    /// A pass after which both ends are the same.
    fn pass(&self, options: &[&str]) -> Output {
        let paths = [
            format!("{}/", self.sandbox.source().display()),
            self.sandbox.destination().display().to_string(),
        ];
        let line = ["-a", "--no-whole-file", "--json"].iter().chain(options).map(|&word| word.to_owned());
        let output = self.sandbox.sync(line.chain(paths));
        output.success();
        assert_same(&snapshot(&self.sandbox.source()), &snapshot(&self.sandbox.destination()), &NOTHING);
        output
    }
}

fn write_into(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("it is there");
    file.write_all_at(bytes, at).expect("room for the data");
}

/// Seconds that the destination's threads spent on an activity.
fn destination_time(output: &Output, name: &str) -> f64 {
    let text = output.stdout_text();
    let times = text.split("\"destination_times\":").nth(1).expect("the summary has it");
    let figure = times.split(&format!("\"{name}\":")).nth(1).expect("it has this one");
    figure.split([',', '}']).next().and_then(|figure| figure.parse().ok()).expect("a number")
}

#[test]
fn the_pass_of_a_series_in_place_does_not_read_the_old_file() {
    for options in [&[][..], &["--inplace"]] {
        let mut series = Series::begin();
        for round in 1..4u64 {
            series.change(round << 20, &Rng::new(round).bytes(20_000));
            let output = series.pass(options);
            assert!(output.summary_number("literal_bytes") <= 3 * (16 << 10), "{output}");
            let read_s = destination_time(&output, "read_s");
            // Without `--inplace` the new copy is read once, to hash it.
            assert!(!options.contains(&"--inplace") || read_s < 0.001, "it was read\n{output}");
        }
    }
}

#[test]
fn a_destination_that_was_changed_behind_the_back_of_the_index_becomes_exact_again() {
    for options in [&[][..], &["--inplace"]] {
        let mut series = Series::begin();
        let modified = UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        // The same size, and the time put back: only its ctime shows it.
        write_into(&series.to(), 30 << 20, b"not what the source has");
        let file = fs::File::options().write(true).open(series.to()).expect("it is there");
        file.set_modified(modified).expect("it is ours");
        drop(file);
        series.change(10 << 20, b"one page");
        let output = series.pass(options);
        assert!(output.summary_number("literal_bytes") <= 4 * (16 << 10), "{output}");
    }
}

#[test]
fn an_index_that_is_gone_or_damaged_or_of_another_file_costs_only_time() {
    for damage in ["gone", "noise", "replaced file"] {
        let mut series = Series::begin();
        let index = series.sandbox.state().join("sync-client/index.redb");
        match damage {
            "gone" => fs::remove_file(&index).expect("a run kept it"),
            "noise" => fs::write(&index, Rng::new(3).bytes(100_000)).expect("it is ours"),
            _ => {
                let aside = series.to().with_extension("aside");
                fs::copy(series.to(), &aside).expect("room for a copy");
                write_into(&aside, 50 << 20, b"another file's content");
                fs::rename(&aside, series.to()).expect("it is ours");
            }
        }
        series.change(10 << 20, b"one page");
        let output = series.pass(&[]);
        assert!(output.summary_number("literal_bytes") <= 4 * (16 << 10), "{damage}\n{output}");
    }
}

#[test]
fn pages_that_a_database_moved_are_found_where_they_were() {
    for options in [&[][..], &["--inplace"]] {
        let mut series = Series::begin();
        // By pages, not by blocks; the second time back, so that in place each is where the other is read.
        for (round, (first, second)) in [(1000, 9003), (1000, 9003), (2001, 4002)].into_iter().enumerate() {
            let old = fs::read(series.from()).expect("it is there");
            let pages = |at: u64| &old[(at * PAGE) as usize..][..512 * PAGE as usize];
            series.change(first * PAGE, pages(second));
            series.change(second * PAGE, pages(first));
            let output = series.pass(options);
            let literal_bytes = output.summary_number("literal_bytes");
            assert_eq!(literal_bytes, 0, "{options:?}, round {round}\n{output}");
        }
        // With a page that is new among them.
        series.change(5000 * PAGE, &Rng::new(7).bytes(PAGE as usize));
        let output = series.pass(options);
        assert_eq!(output.summary_number("literal_bytes"), PAGE, "{options:?}\n{output}");
    }
}

#[test]
fn a_file_whose_content_moved_is_searched_for_it() {
    let series = Series::begin();
    let old = fs::read(series.from()).expect("it is there");
    for (round, moved) in [
        (1, [b"a line at the front\n", &old[..]].concat()),
        (2, [&old[..40 << 20], b"a line in the middle\n", &old[40 << 20..]].concat()),
        (3, old[1000..].to_vec()),
    ] {
        write_at(&series.from(), &old, 1_600_000_100 + round);
        series.pass(&[]);
        write_at(&series.from(), &moved, 1_600_000_200 + round);
        let output = series.pass(&[]);
        // What was sent before it was plain that the rest has moved counts, too.
        assert!(output.summary_number("literal_bytes") <= 34 << 20, "{round}\n{output}");
        let found = output.summary_number("matched_bytes");
        assert!(found >= 44 << 20, "{round}: {found} bytes found\n{output}");
    }
}

#[test]
fn what_a_checksum_finds_to_differ_is_not_believed_of_the_index() {
    tests::require!("root", "mkfs.ext4");
    for options in [&["-c"][..], &["-c", "--inplace"]] {
        let sandbox = Sandbox::new();
        let disk = Image::create(sandbox.path(), 256 << 20);
        let (from, to) = (sandbox.source().join("file"), disk.path().join("copy/file"));
        let mut content = Rng::new(1).bytes(70 << 20);
        content[50 << 20..][..16].copy_from_slice(b"soon damaged, ok");
        write_at(&from, &content, 1_600_000_000);
        let paths =
            [format!("{}/", sandbox.source().display()), disk.path().join("copy").display().to_string()];
        let sync = |options: &[&str]| {
            let line = ["-a", "--no-whole-file"].iter().chain(options).map(|&word| word.to_owned());
            sandbox.sync(line.chain(paths.clone())).success();
        };
        sync(&[]);
        disk.damage(b"soon damaged, ok", b"soon damaged, no");
        assert!(fs::read(&to).expect("it is there") != content, "the damage is to be seen");
        sync(options);
        assert!(fs::read(&to).expect("it is there") == content, "{options:?}");
    }
}

#[test]
fn a_file_that_somebody_writes_to_during_its_patch_is_not_taken_for_exact() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    let (from, to) = (sandbox.source().join("a"), sandbox.destination().join("a"));
    let mut content = Rng::new(1).bytes(8 << 20);
    write_at(&to, &content, 1_600_000_000);
    content[..9].copy_from_slice(b"one block");
    write_at(&from, &content, 1_600_000_001);
    // Keeps the run busy while the journal of the other waits.
    write_at(&sandbox.source().join("z"), &Rng::new(2).bytes(6 << 20), 1_600_000_000);
    let source = sshd.address().host_path(&format!("{}/", sandbox.source().display()));
    let shell = sshd.address().remote_shell();
    let destination = sandbox.destination().display().to_string();
    let line = |options: &[&str]| {
        let words = ["-a", "--inplace", "-e", &shell].into_iter().chain(options.iter().copied());
        words.chain([source.as_str(), destination.as_str()]).map(str::to_owned).collect::<Vec<_>>()
    };
    let run = sandbox.start_sync(line(&["--bwlimit=3M"]));
    let staging = sandbox.destination().join(".sync-agent-staging");
    until(Duration::from_secs(60), "a journal", || {
        let names = fs::read_dir(&staging).ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".patch")).last()
    });
    write_into(&to, 5 << 20, b"somebody else's");
    let output = run.wait_within(Duration::from_secs(60));
    assert!(output.code() == 23 || fs::read(&to).expect("it is there") == content, "{output}");
    sandbox.sync(line(&[])).success();
    assert!(fs::read(&to).expect("it is there") == content);
}

#[test]
fn names_of_one_file_are_not_patched_in_place() {
    let sandbox = Sandbox::new();
    let old = Rng::new(1).bytes(4 << 20);
    for (number, name) in (1..).zip(["a", "b"]) {
        let mut content = old.clone();
        content[number << 20..][..4].copy_from_slice(b"mine");
        write_at(&sandbox.source().join(name), &content, 1_600_000_000 + number as i64);
    }
    write_at(&sandbox.destination().join("a"), &old, 1_500_000_000);
    fs::hard_link(sandbox.destination().join("a"), sandbox.destination().join("b")).expect("another name");
    let paths = [format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string()];
    sandbox.sync(["-a", "--inplace", "--no-whole-file", &paths[0], &paths[1]]).success();
    assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
}

#[test]
fn an_old_file_that_cannot_be_read_is_done_without() {
    tests::require!("strace");
    let mut series = Series::begin();
    series.change(60 << 20, b"one block");
    let mut command = series.sandbox.command("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "inject=copy_file_range:error=EIO"]);
    command.arg(tests::sandbox::program("sync-client")).args(["sync", "-a", "--no-whole-file"]);
    command.arg(format!("{}/", series.sandbox.source().display())).arg(series.sandbox.destination());
    tests::process::run(command).success();
    assert_same(&snapshot(&series.sandbox.source()), &snapshot(&series.sandbox.destination()), &NOTHING);
}

#[test]
fn where_files_can_share_blocks_a_change_takes_no_room_for_a_second_copy() {
    tests::require!("root", "mkfs.xfs");
    let sandbox = Sandbox::new();
    // Some 90 MB less are free than the file takes.
    let disk = Image::create_xfs(sandbox.path(), 384 << 20);
    let (from, to) = (sandbox.source().join("file"), disk.path().join("copy/file"));
    let mut content = Rng::new(1).bytes(200 << 20);
    write_at(&from, &content, 1_600_000_000);
    let paths = [format!("{}/", sandbox.source().display()), disk.path().join("copy").display().to_string()];
    let sync = || {
        sandbox.sync(["-a", "--no-whole-file", &paths[0], &paths[1]]).success();
    };
    sync();
    // With what the index knows, and by reading the old file.
    for (round, with_index) in [(1, true), (2, false)] {
        content[round << 24..][..9].copy_from_slice(b"one block");
        write_at(&from, &content, 1_600_000_000 + round as i64);
        if !with_index {
            fs::remove_dir_all(sandbox.state()).expect("a run kept an index");
        }
        sync();
        assert!(fs::read(&to).expect("it is there") == content, "round {round}");
    }
}

#[test]
fn zeros_and_growth_and_a_shorter_file_arrive_as_they_are() {
    for options in [&[][..], &["--inplace"]] {
        let mut series = Series::begin();
        series.change(PAGE * 7, &vec![0; 5 << 20]);
        let sent = series.pass(options).summary_number("sent_bytes");
        assert!(sent < 1 << 20, "{sent} bytes for zeros");
        let file = fs::File::options().write(true).open(series.from()).expect("it is there");
        file.set_len(FILE_BYTES as u64 + (30 << 20)).expect("room for a hole");
        series.change(FILE_BYTES as u64 + (29 << 20), b"the end of what has grown");
        series.pass(options);
        file.set_len(FILE_BYTES as u64 / 2 + 77).expect("a shorter file");
        series.change(0, b"first page");
        series.pass(options);
        file.set_len(100_000).expect("a small file");
        series.change(50_000, b"few pages");
        series.pass(options);
        assert_eq!(fs::metadata(series.to()).expect("it is there").size(), 100_000);
    }
}

/// What a database does: one page is changed, and written elsewhere.
#[test]
fn a_run_that_is_to_save_bytes_finds_small_blocks_without_their_signature() {
    let sandbox = Sandbox::new();
    let sshd = Sshd::start(&sandbox);
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    let mut content = Rng::new(7).bytes(16 << 20);
    write_at(&to, &content, 1_600_000_000);
    for number in 0..20 {
        let at = (number << 19) + 1000;
        let mut page = content[at..at + (32 << 10)].to_vec();
        page[9000] ^= 1;
        content.extend_from_slice(&page);
    }
    // One that does not stay where it was.
    let moved = content[15 << 20..(15 << 20) + 4096].to_vec();
    content.extend_from_slice(&moved);
    content[15 << 20..(15 << 20) + 4096].fill(7);
    write_at(&from, &content, 1_600_000_001);
    let here = format!("{}/", sandbox.source().display());
    let there = sandbox.destination().display().to_string();
    let address = sshd.address();
    let shell = address.remote_shell();
    let pull = [address.host_path(&here), there.clone()];
    let push = [here.clone(), address.host_path(&there)];
    for (ends, options) in [(&pull, &[][..]), (&push, &[]), (&pull, &["--inplace"])] {
        fs::write(&to, &content[..16 << 20]).expect("room for it");
        write_into(&to, 15 << 20, &moved);
        tests::tree::set_mtime(&to, 1_600_000_000, 0);
        let words = ["-a", "-z", "--json", "-e", &shell];
        let line = words.iter().chain(options).map(|&word| word.to_owned());
        let output = sandbox.sync(line.chain(ends.iter().cloned()));
        output.success();
        assert_same(&snapshot(&sandbox.source()), &snapshot(&sandbox.destination()), &NOTHING);
        // For each page two ends of blocks and the change, and what was written over.
        assert!(output.summary_number("literal_bytes") <= 20 * 3 * 512 + 4096, "{output}");
        // 16 bytes for each 16 KiB, and 12 for each 512 bytes of one of them: a whole signature had 400 KB.
        let bytes = output.summary_number("sent_bytes") + output.summary_number("received_bytes");
        assert!(bytes <= 75_000, "{output}");
    }
}

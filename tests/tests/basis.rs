//! What is known of the old file makes a run short, and never wrong.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tests::mount::Image;
use tests::process::Output;
use tests::sandbox::Sandbox;
use tests::seed::Rng;
use tests::snapshot::{NOTHING, assert_same, snapshot};
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
fn the_pass_of_a_series_does_not_read_the_old_file() {
    for options in [&[][..], &["--inplace"]] {
        let mut series = Series::begin();
        for round in 1..4u64 {
            series.change(round << 20, &Rng::new(round).bytes(20_000));
            let output = series.pass(options);
            assert!(output.summary_number("literal_bytes") <= 3 * (16 << 10), "{output}");
            assert!(destination_time(&output, "read_s") < 0.001, "{options:?}: it was read\n{output}");
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

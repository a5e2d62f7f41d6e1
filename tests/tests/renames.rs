//! What the source renamed or copied is made from what the destination has: nothing of it is sent, and it is exact.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::directions::{Direction, Stage, Transport};
use tests::mount::Tmpfs;
use tests::process::{Output, until};
use tests::sandbox::{Sandbox, names_in};
use tests::seed::{Rng, seeds};
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{set_mtime, write_at};

const TIME: i64 = 1_600_000_000;
/// Listings, requests, hashes and the handshake of a small tree.
const TALK_BYTES: u64 = 40_000;
/// Smaller files are sent: that takes less than to ask.
const SMALL_BYTES: u64 = 16 << 10;
const REMOTE: [Direction; 2] = [Direction::Pull(Transport::Sshd), Direction::Push(Transport::Sshd)];

/// A pair of trees that passes keep equal.
struct Series<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    direction: Direction,
    directory: PathBuf,
}

impl<'a> Series<'a> {
    fn new(sandbox: &'a Sandbox, stage: &'a Stage, direction: Direction, name: &str) -> Series<'a> {
        let directory = sandbox.path().join(name);
        let series = Series { sandbox, stage, direction, directory };
        [series.from(""), series.to("")].iter().for_each(|path| fs::create_dir_all(path).expect("a new one"));
        series
    }

    fn from(&self, name: &str) -> PathBuf {
        self.directory.join("from").join(name)
    }

    fn to(&self, name: &str) -> PathBuf {
        self.directory.join("to").join(name)
    }

    /// A new file at the source, of content that `seed` decides.
    fn write(&self, name: &str, seed: u64, bytes: usize, seconds: i64) {
        fs::create_dir_all(self.from(name).parent().expect("it has one")).expect("a new directory");
        write_at(&self.from(name), &Rng::new(seed).bytes(bytes), TIME + seconds);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.from(from), self.from(to)).expect("it is there");
    }

    /// As `cp --preserve=timestamps`.
    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.from(from), self.from(to)).expect("it is there");
        let time = fs::metadata(self.from(from)).expect("it is there").mtime();
        set_mtime(&self.from(to), time, 0);
    }

    fn run(&self, options: &[&str]) -> Output {
        let line: Vec<&str> = ["-a"].into_iter().chain(options.iter().copied()).collect();
        let (from, to) = (self.from("").display().to_string(), self.to("").display().to_string());
        self.stage.sync(self.sandbox, self.direction, &line, &from, &to)
    }

    /// A pass after which both are the same.
    fn pass(&self, options: &[&str]) -> Output {
        let output = self.run(&[&["--delete", "--json"], options].concat());
        output.success();
        self.assert_same();
        output
    }

    fn assert_same(&self) {
        assert_same(&snapshot(&self.from("")), &snapshot(&self.to("")), &NOTHING);
    }
}

fn wire_bytes(output: &Output) -> u64 {
    output.summary_number("sent_bytes") + output.summary_number("received_bytes")
}

/// Runs `check` on a series for each direction, with servers that all share.
fn in_each_direction(check: impl Fn(&Sandbox, &Stage, Direction)) {
    tests::require!("sshd", "rsync");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    REMOTE.iter().for_each(|&direction| check(&sandbox, &stage, direction));
}

/// A change at the source, and how much of it was at the destination before.
type Case = (&'static str, fn(&Series<'_>), u64);

const CASES: [Case; 8] = [
    (
        "a directory renamed",
        |series| {
            series.rename("users/u1", "users/u2");
            set_mtime(&series.from("users"), TIME, 0);
        },
        20_001 + 300_000 + (1 << 20),
    ),
    (
        "copies that keep their time",
        |series| {
            series.copy("users/u2/large", "again");
            series.copy("again", "and again");
        },
        2 << 20,
    ),
    (
        "a copy with a time of its own",
        |series| {
            fs::copy(series.from("users/u2/middle"), series.from("later")).expect("it is there");
            set_mtime(&series.from("later"), TIME + 5000, 0);
        },
        300_000,
    ),
    (
        "logs moving on",
        |series| {
            fs::remove_file(series.from("log.3")).expect("it is there");
            series.rename("log.2", "log.3");
            series.rename("log.1", "log.2");
            series.rename("log", "log.1");
        },
        100_000 + 150_000 + 200_000,
    ),
    (
        "two files that change places",
        |series| {
            series.rename("a", "x");
            series.rename("b", "a");
            series.rename("x", "b");
        },
        2 * 80_000,
    ),
    (
        "three that change places, of several sizes",
        |series| {
            series.rename("a", "x");
            series.rename("log.1", "a");
            series.rename("log.2", "log.1");
            series.rename("x", "log.2");
        },
        80_000 + 100_000 + 150_000,
    ),
    (
        "a name with other permissions",
        |series| {
            series.rename("a", "private");
            fs::set_permissions(series.from("private"), fs::Permissions::from_mode(0o600))
                .expect("it is ours");
        },
        100_000,
    ),
    (
        "the first name again, after several",
        |series| {
            series.rename("users/u2", "users/u1");
            set_mtime(&series.from("users"), TIME, 0);
        },
        20_001 + 300_000 + (1 << 20),
    ),
];

#[test]
fn what_was_renamed_or_copied_is_not_sent_and_is_told_as_rsync_does() {
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("series-{direction:?}"));
        series.write("users/u1/small", 1, 20_001, 1);
        series.write("users/u1/middle", 2, 300_000, 2);
        series.write("users/u1/deep/er/large", 3, 1 << 20, 3);
        fs::rename(series.from("users/u1/deep/er/large"), series.from("users/u1/large"))
            .expect("it is there");
        for (number, name) in (0..).zip(["log", "log.1", "log.2", "log.3"]) {
            series.write(name, 10 + number, 100_000 + 50_000 * number as usize, number as i64);
        }
        series.write("a", 20, 80_000, 20);
        series.write("b", 21, 80_000, 21);
        set_mtime(&series.from("users"), TIME, 0);
        series.pass(&[]);
        for (number, (what, change, bytes)) in (1..).zip(CASES) {
            change(&series);
            // Of directories rsync compares whole seconds.
            set_mtime(&series.from(""), TIME + number, 0);
            let (from, to) = (series.from("").display().to_string(), series.to("").display().to_string());
            let lines = |mut lines: Vec<String>| {
                lines.sort();
                lines
            };
            let dry = ["-a", "-i", "-n", "--delete"];
            let rsync = lines(stage.rsync(sandbox, direction, &dry, &from, &to).itemized());
            let planned = lines(series.run(&["-i", "-n", "--delete"]).itemized());
            let output = series.run(&["-i", "--delete", "--stats"]);
            assert_eq!(lines(output.success().itemized()), rsync, "{what}");
            assert_eq!(planned, rsync, "{what}");
            series.assert_same();
            let text = output.stdout_text();
            let figure = |label: &str| {
                let line = text.lines().find(|line| line.starts_with(label)).expect("rsync's label");
                let digits: String = line.chars().filter(char::is_ascii_digit).collect();
                digits.parse::<u64>().expect("a number")
            };
            let (literal, matched) = (figure("Literal data:"), figure("Matched data:"));
            assert_eq!((literal, matched), (0, bytes), "{direction:?}: {what}\n{output}");
            let wire = figure("Total bytes sent:") + figure("Total bytes received:");
            assert!(wire < TALK_BYTES, "{direction:?}: {what}: {wire} bytes\n{output}");
        }
        let output = series.pass(&[]);
        assert_eq!(output.summary_number("files_created") + output.summary_number("files_updated"), 0);
    });
}

#[test]
fn what_only_looks_the_same_or_is_not_what_it_was_is_fetched() {
    const BYTES: usize = 70_001;
    type Spoil = fn(&Path);
    // What becomes of the destination's file before the source's is renamed.
    let spoils: [(&str, Spoil); 6] = [
        ("another content of that size and time", |path| {
            write_at(path, &Rng::new(99).bytes(BYTES), TIME);
        }),
        ("another size", |path| write_at(path, b"short", TIME)),
        ("gone", |path| fs::remove_file(path).expect("it is there")),
        ("a directory", |path| {
            fs::remove_file(path).expect("it is there");
            fs::create_dir(path).expect("a new one");
        }),
        ("a link out of the tree", |path| {
            let away = path.with_file_name("away");
            fs::rename(path, &away).expect("it is there");
            std::os::unix::fs::symlink(&away, path).expect("a new link");
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).expect("it is there");
            let mode = 0o600.into();
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
        }),
    ];
    in_each_direction(|sandbox, stage, direction| {
        for (number, (what, spoil)) in spoils.iter().enumerate() {
            let series = Series::new(sandbox, stage, direction, &format!("spoilt-{number}-{direction:?}"));
            series.write("old", 1, BYTES, 0);
            series.pass(&[]);
            spoil(&series.to("old"));
            series.rename("old", "new");
            let output = series.pass(&[]);
            assert_eq!(output.summary_number("literal_bytes"), BYTES as u64, "{what}\n{output}");
            // What was found to be stale is forgotten, and the new name is known.
            series.rename("new", "old");
            assert_eq!(series.pass(&[]).summary_number("literal_bytes"), 0, "{what}");
        }
        let series = Series::new(sandbox, stage, direction, &format!("alike-{direction:?}"));
        series.write("one", 1, BYTES, 0);
        series.pass(&[]);
        // The size and the time of a file that is there, and another content.
        series.write("two", 2, BYTES, 0);
        assert_eq!(series.pass(&[]).summary_number("literal_bytes"), BYTES as u64);
        // Of two that look the same the right one is taken.
        series.copy("one", "three");
        series.copy("two", "four");
        let output = series.pass(&[]);
        assert_eq!(output.summary_number("literal_bytes"), 0, "{output}");
    });
}

#[test]
fn options_hold_for_what_is_recognised_too() {
    const BYTES: u64 = 70_001;
    let cases: [(&[&str], bool); 15] = [
        (&[], true),
        (&["--inplace"], true),
        (&["--delay-updates"], true),
        (&["--partial-dir=.part"], true),
        (&["--temp-dir=."], true),
        (&["--fuzzy"], true),
        (&["-H"], true),
        (&["-z"], true),
        (&["--size-only"], true),
        (&["--delete-before"], false),
        (&["--no-index"], false),
        (&["--whole-file"], false),
        (&["--checksum"], false),
        (&["--ignore-times"], false),
        (&["--bwlimit=10M", "--delete-after"], true),
    ];
    in_each_direction(|sandbox, stage, direction| {
        for (number, (options, is_recognised)) in cases.iter().enumerate() {
            let series = Series::new(sandbox, stage, direction, &format!("options-{number}-{direction:?}"));
            series.write("old", 1, BYTES as usize, 0);
            series.pass(&[]);
            series.rename("old", "new");
            fs::hard_link(series.from("new"), series.from("zweite")).expect("another name");
            if !options.contains(&"-H") {
                fs::remove_file(series.from("zweite")).expect("it is there");
            }
            let output = series.pass(options);
            let literal = output.summary_number("literal_bytes");
            assert_eq!(literal, if *is_recognised { 0 } else { BYTES }, "{options:?}\n{output}");
            if options.contains(&"-H") {
                assert_eq!(fs::metadata(series.to("new")).expect("it is there").nlink(), 2);
            }
        }
    });
}

#[test]
fn what_is_replaced_is_kept_where_that_is_asked_for_and_patched_files_stay_what_they_are() {
    in_each_direction(|sandbox, stage, direction| {
        for options in [&["--backup", "--suffix=.old"][..], &["--trash=../trash"]] {
            let series =
                Series::new(sandbox, stage, direction, &format!("kept-{}-{direction:?}", &options[0][2..]));
            series.write("log", 1, 50_000, 1);
            series.write("log.1", 2, 60_000, 2);
            series.pass(&[]);
            let replaced = fs::read(series.to("log.1")).expect("it is there");
            series.rename("log", "log.1");
            let output = series.run(&[options, &["--json"]].concat());
            assert_eq!(output.success().summary_number("literal_bytes"), 0, "{output}");
            assert!(fs::read(series.to("log.1")).expect("it is there") == Rng::new(1).bytes(50_000));
            let is_kept = walkdir::WalkDir::new(&series.directory).into_iter().flatten().any(|entry| {
                entry.file_type().is_file() && fs::read(entry.path()).ok().as_ref() == Some(&replaced)
            });
            assert!(is_kept, "{options:?}");
        }
        let series = Series::new(sandbox, stage, direction, &format!("in-place-{direction:?}"));
        series.write("log", 1, 50_000, 1);
        series.write("log.1", 2, 60_000, 2);
        series.pass(&[]);
        let inode = fs::metadata(series.to("log.1")).expect("it is there").ino();
        series.rename("log", "log.1");
        series.pass(&["--inplace"]);
        assert_eq!(fs::metadata(series.to("log.1")).expect("it is there").ino(), inode);
    });
}

#[test]
fn a_plan_that_renames_is_carried_out_as_planned() {
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("plan-{direction:?}"));
        series.write("old", 1, 70_001, 0);
        series.pass(&[]);
        series.rename("old", "new");
        set_mtime(&series.from(""), TIME, 0);
        let planned = series.run(&["--delete", "--dry-run", "--json"]);
        let plan = series.directory.join("plan");
        fs::write(&plan, planned.success().stdout_text()).expect("a new file");
        let output = series.pass(&[&format!("--apply-plan={}", plan.display())]);
        assert_eq!(output.summary_number("literal_bytes"), 0, "{output}");
        assert_eq!(names_in(&series.to("")), ["new"]);
    });
}

#[test]
fn a_file_and_the_directory_that_it_was_in_take_each_others_name() {
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("places-{direction:?}"));
        series.write("name/file", 1, 70_001, 0);
        series.pass(&[]);
        series.rename("name/file", "aside");
        fs::remove_dir(series.from("name")).expect("it is empty");
        series.rename("aside", "name");
        assert_eq!(series.pass(&[]).summary_number("literal_bytes"), 0);
        // The other way round it makes room for the directory at once, and has to be sent.
        series.rename("name", "aside");
        fs::create_dir(series.from("name")).expect("a new directory");
        series.rename("aside", "name/file");
        series.pass(&[]);
    });
}

#[test]
fn an_alternate_base_that_has_the_file_comes_first() {
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("base-{direction:?}"));
        series.write("old", 1, 70_001, 0);
        series.pass(&[]);
        series.rename("old", "new");
        let base = series.directory.join("base");
        fs::create_dir(&base).expect("a new directory");
        fs::copy(series.from("new"), base.join("new")).expect("it is there");
        set_mtime(&base.join("new"), TIME, 0);
        let output = series.pass(&["--link-dest=../base"]);
        assert_eq!(output.summary_number("literal_bytes") + output.summary_number("matched_bytes"), 0);
        let inode = |path: &Path| fs::metadata(path).expect("it is there").ino();
        assert_eq!(inode(&series.to("new")), inode(&base.join("new")));
    });
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_what_was_there() {
    tests::require!("root");
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("full-{direction:?}"));
        let disk = Tmpfs::mount(&series.to(""), 3 << 20);
        series.write("old", 1, 2 << 20, 0);
        series.pass(&[]);
        series.copy("old", "new");
        series.run(&[]).expect_code(44);
        assert!(fs::read(disk.path().join("old")).expect("it is there") == Rng::new(1).bytes(2 << 20));
        assert!(!names_in(disk.path()).contains(&"new".to_owned()));
        fs::remove_file(series.from("new")).expect("it is there");
        series.pass(&[]);
    });
}

#[test]
fn a_run_that_was_killed_half_way_is_finished_by_the_next() {
    in_each_direction(|sandbox, stage, direction| {
        let series = Series::new(sandbox, stage, direction, &format!("killed-{direction:?}"));
        for number in 0..12 {
            series.write(&format!("u1/{number}"), number, (4 << 20) + number as usize, number as i64);
        }
        series.pass(&[]);
        series.rename("u1", "u2");
        let (from, to) = (series.from("").display().to_string(), series.to("").display().to_string());
        let line = stage.line(direction, &from, &to).with(&["-a", "--delete"]);
        let mut run = sandbox.start_sync(line);
        until(Duration::from_secs(60), "the first files, or the end", || {
            let staged = fs::read_dir(series.to(".sync-agent-staging")).ok()?.flatten().count();
            (staged > 1 || series.to("u2/11").exists()).then_some(())
        });
        run.kill();
        drop(run);
        stage.sshd.wait_for_agents_to_end(Duration::from_secs(60));
        // The index of a client that was killed is begun anew; that of an agent is not.
        series.pass(&[]);
        assert_eq!(names_in(&series.to("")), ["u2"]);
    });
}

/// A source that changes at random, with names that are never used again.
struct Changing<'a> {
    series: &'a Series<'a>,
    rng: Rng,
    names: Vec<String>,
    next: u64,
}

impl Changing<'_> {
    fn fresh(&mut self) -> (String, i64) {
        self.next += 1;
        let name = format!("d{}/f{:04}", self.rng.below(3), self.next);
        fs::create_dir_all(self.series.from(&name).parent().expect("it has one")).expect("a directory");
        (name, self.next as i64)
    }

    fn any(&mut self) -> usize {
        self.rng.index(self.names.len())
    }

    fn create(&mut self) {
        let (name, seconds) = self.fresh();
        let bytes = if self.rng.chance(30) { 65_536 } else { self.rng.log_len(200_000) };
        let seed = self.rng.next_u64();
        self.series.write(&name, seed, bytes, seconds);
        self.names.push(name);
    }

    /// Renames a file; gives its size.
    fn rename(&mut self) -> u64 {
        let at = self.any();
        let (name, _) = self.fresh();
        self.series.rename(&self.names[at], &name);
        self.names[at] = name;
        fs::metadata(self.series.from(&self.names[at])).expect("it is there").size()
    }

    fn change(&mut self) {
        let at = self.any();
        let name = self.names[at].clone();
        let path = self.series.from(&name);
        let mut content = fs::read(&path).expect("it is there");
        let time = fs::metadata(&path).expect("it is there").mtime();
        match self.rng.below(6) {
            0 => self.create(),
            1 => {
                // An edit in the middle.
                if let Some(byte) = content.get_mut(self.rng.index(200_000)) {
                    *byte ^= 1;
                }
                let (_, seconds) = self.fresh();
                write_at(&path, &content, TIME + seconds);
            }
            2 => {
                let (copy, _) = self.fresh();
                self.series.copy(&name, &copy);
                self.names.push(copy);
            }
            3 => {
                // Another content that has size and time of this one.
                let (twin, _) = self.fresh();
                content.reverse();
                write_at(&self.series.from(&twin), &content, time);
                self.names.push(twin);
            }
            4 => {
                let other = self.any();
                let swapped = self.series.from(&self.names[other]);
                let look = |path: &Path| {
                    fs::metadata(path).map(|info| (info.size(), info.mtime())).expect("it is there")
                };
                if look(&path) != look(&swapped) {
                    let aside = self.series.from("aside");
                    fs::rename(&path, &aside).expect("it is there");
                    fs::rename(&swapped, &path).expect("it is there");
                    fs::rename(&aside, &swapped).expect("it is there");
                }
            }
            _ => {
                fs::remove_file(&path).expect("it is there");
                self.names.swap_remove(at);
                self.create();
            }
        }
    }
}

#[test]
fn any_renames_copies_and_edits_come_out_exact_and_renames_alone_send_next_to_nothing() {
    in_each_direction(|sandbox, stage, direction| {
        for seed in seeds(3) {
            let series = Series::new(sandbox, stage, direction, &format!("random-{seed}-{direction:?}"));
            let rng = Rng::new(seed);
            let mut changing = Changing { series: &series, rng, names: Vec::new(), next: 0 };
            (0..25).for_each(|_| changing.create());
            series.pass(&[]);
            for _ in 0..3 {
                let count = 1 + changing.rng.below(15);
                (0..count).for_each(|_| changing.change());
                for _ in 0..4 {
                    changing.rename();
                }
                series.pass(&[]);
                let sizes: Vec<u64> = (0..6).map(|_| changing.rename()).collect();
                let small: u64 = sizes.iter().filter(|&&size| size <= SMALL_BYTES).sum();
                let output = series.pass(&[]);
                assert!(output.summary_number("literal_bytes") <= small, "{direction:?} {seed}\n{output}");
                assert!(wire_bytes(&output) <= small + TALK_BYTES, "{direction:?} {seed}\n{output}");
            }
        }
    });
}

#[test]
fn a_first_copy_and_a_local_one_ask_for_no_hash() {
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let series = Series::new(&sandbox, &stage, Direction::Local, "local");
    series.write("old", 1, 70_001, 0);
    series.pass(&[]);
    series.rename("old", "new");
    let output = series.pass(&[]);
    assert_eq!(output.summary_number("literal_bytes"), 70_001, "copied from the source\n{output}");
    assert!(!sandbox.state().join("sync-client/index.redb").exists(), "nothing is remembered");
    let series = Series::new(&sandbox, &stage, REMOTE[0], "first");
    for number in 0..10 {
        // All of one size and time, as another one that is there.
        series.write(&number.to_string(), number, 70_001, 0);
    }
    let output = series.pass(&[]);
    assert_eq!(output.summary_number("literal_bytes"), 10 * 70_001, "{output}");
}

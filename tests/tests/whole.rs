//! The whole migration on the whole platform: real Docker Engines, compose projects, NGINX with TLS, WiredTiger with a
//! writer, DNS answers from the register's file ([`tests::platform`]). From nothing to done, and the undos; killed at every
//! step boundary and gone on with; back from wherever that is safe.

use tests::engine::NEEDED;
use tests::platform::{ATTACHMENTS, DATABASE, NAMES, Platform, SERVICES, SITE};
use tests::snapshot::{NOTHING, assert_same, snapshot};

macro_rules! require_platform {
    () => {
        for name in NEEDED {
            tests::require!(name);
        }
        tests::require!("sshd", "nginx", "openssl", "curl", "wiredtiger", "strip");
    };
}

#[test]
fn the_platform_moves_from_nothing_to_done_and_the_undos_give_the_first_bytes_back() {
    require_platform!();
    let from = std::time::Instant::now();
    let platform = Platform::start();
    println!("{:?} up", from.elapsed());
    println!("{}", platform.step(&["probe", "create"]));
    println!("{}", platform.step(&["migrate", "--yes"]));
    println!("{}", platform.step(&["probe", "check"]));
    println!("{}", platform.step(&["probe", "check", "--at", "source"]));
    let mut before = 0;
    for r in platform.records() {
        let t = r["time_ms"].as_u64().unwrap();
        println!("{:6} {} {} {}", t - before, r["step"], r["action"], r["state"]);
        before = t;
    }
    panic!("look");
}

//! The plan that `check --init` prints: every path and command of a layout, each with what it is for.
//!
//! Two layouts are known. They differ in the directory above the services (`core/…`, compose file in ROOT; `pryv/…`, compose
//! file in it) and in the names of the scripts. What is printed parses; the addresses are examples to replace.

use super::plan::Layout;

/// What differs between the layouts.
struct Preset {
    layout: &'static str,
    directory: &'static str,
    start: &'static str,
    stop: &'static str,
    permissions: &'static str,
    compose_file: &'static str,
    secrets: &'static str,
    dns_file: &'static str,
    register_file: &'static str,
    register_start: &'static str,
}

const OF_2019: Preset = Preset {
    layout: "2019",
    directory: "core",
    start: "run-core",
    stop: "stop-containers",
    permissions: "ensure-permissions-core",
    compose_file: "core.yml",
    secrets: r#""core/core/conf/core.json#auth.adminAccessKey", "core/core/conf/core.json#auth.filesReadTokenSecret""#,
    dns_file: "reg-master/dns/conf/dns.json",
    register_file: "reg-master/register/conf/register.json",
    register_start: "run-reg-master",
};

const OF_2020: Preset = Preset {
    layout: "2020",
    directory: "pryv",
    start: "run-pryv",
    stop: "stop-pryv",
    permissions: "ensure-permissions",
    compose_file: "pryv/pryv.yml",
    secrets: r#""pryv/core/conf/core.json#auth.adminAccessKey", "pryv/core/conf/core.json#auth.filesReadTokenSecret""#,
    dns_file: "pryv/dns/conf/dns.json",
    register_file: "pryv/register/conf/register.json",
    register_start: "restart-pryv",
};

/// The commented plan of a layout.
pub(crate) fn plan(layout: Layout) -> String {
    let preset = match layout {
        Layout::Of2019 => OF_2019,
        Layout::Of2020 => OF_2020,
    };
    let Preset { layout, directory, start, stop, permissions, compose_file, secrets, .. } = preset;
    let service = format!(
        r#"# A script of ROOT is run by bash, in ROOT. A list is a program with its arguments, run in ROOT:
# stop = ["docker-compose", "-f", "{compose_file}", "stop", "--timeout", "120"]
start = "{start}"
stop = "{stop}"
compose_files = ["{compose_file}"]
docker = ["docker"]                       # [] where there is none
containers = ["reverse_proxy", "core", "preview", "hfs", "mongodb"]   # compose services that must be up
logs = ["core", "preview", "hfs"]         # whose errors are shown after the start
start_s = 300                             # how long each may take
stop_s = 300
health_s = 300"#
    );
    format!(
        r#"# The plan of one migration. Steps run on the destination: sync-client check --plan plan.toml
# Paths are absolute, or below the ROOT of their core; none may have `..` in it.

layout = "{layout}"
state_dir = "/var/lib/sync-client/migration"   # journal and index, on the destination

# Writable volumes of the compose files that are left behind on purpose; * stands for one name.
left = ["{directory}/*/log", "/dev/log", "/var/log/pryv/audit/*"]
# Equal on both cores, or sessions and file links break: FILE, or FILE#KEY.KEY of a JSON file. Only hashes are compared.
secrets = [{secrets}]

[source]
root = "/var/pryv"                        # ROOT: the platform's directory
address = "192.0.2.10"                    # where clients reach it now

[source.ssh]
host = "old-core.example.com"
user = "root"
port = 22
identities = ["~/.ssh/migration"]
known_hosts = ["~/.ssh/known_hosts"]
# host_key = "SHA256:…"                   # accept exactly this one
# command = "ssh -J bastion"              # a program instead of the built-in client, as -e of `sync`
agent = "sync-agent"
timeout_s = 60                            # nothing heard for so long ends a pass

[source.service]
{service}

[destination]
root = "/var/pryv"
address = "192.0.2.20"

[destination.service]
{service}
ensure_permissions = "{permissions}"      # between the copy and the start
# health = ["curl", "--fail", "--silent", "--insecure", "https://localhost/"]   # without it: the containers are up

# A data set means: the contents of this directory become those of the same one at the destination.
# Others: destination_path, exclude = ["/cache"], numeric_ids = true, delete = true, xattrs = true (false: `user.*` attributes are
# left behind by choice).
[[data]]
name = "mongodb"
kind = "mongodb"                          # an exact mirror; warm until it was copied after a stop
path = "{directory}/mongodb/data"
sentinels = ["WiredTiger"]                # must be there, or the source is not what it seems
copy_links = true

[[data]]
name = "attachments"
kind = "files"
path = "{directory}/core/data"
sentinels = ["attachments"]
copy_links = true
exclude = ["/previews"]                   # made anew

[[data]]
name = "influxdb"                         # high-frequency series; the written procedure forgets them
kind = "files"
path = "{directory}/influxdb/data"
sentinels = ["meta"]

[[data]]
name = "hfs"
kind = "files"
path = "{directory}/hfs/data"

"#
    ) + &rest(&preset)
}

/// From the limits on.
fn rest(preset: &Preset) -> String {
    let Preset { directory, compose_file, dns_file, register_file, register_start, .. } = preset;
    format!(
        r#"[limits]
max_downtime_s = 300                      # `bulk` is done when the cold pass is forecast to be this short
max_delete = 1000                         # a pass that would remove more of a data set removes nothing (exit 25)
max_passes = 8
bulk_bytes_per_s = 0                      # for bulk passes; 0 is no limit

[certificate]                             # what the destination answers with
file = "{directory}/nginx/conf/secret/bundle.crt"
name = "co1.example.com"

[proxy]                                   # the source's NGINX sends clients on while names spread
file = "{directory}/nginx/conf/site-443.conf"
upstreams = ["core_server", "websocket_server", "hfs_server", "preview_server"]
# Run on the source. Not run-core: that would start mongod and core on old data as well. Names of other containers in
# the file must resolve while NGINX alone runs.
test = ["docker-compose", "-f", "{compose_file}", "run", "--rm", "--no-deps", "-T", "reverse_proxy", "nginx", "-t"]
# A running NGINX reads a file that was replaced only when its container is made anew.
start = ["docker-compose", "-f", "{compose_file}", "up", "-d", "--no-deps", "--force-recreate", "reverse_proxy"]
stop = ["docker-compose", "-f", "{compose_file}", "stop", "reverse_proxy"]
# check = ["curl", …]                     # run here: succeeds when the source's address is answered by the destination;
#                                         # without it: the same status for certificate.name from both addresses, not 5xx
check_s = 60                              # how long it may take to succeed
port = 443                                # where the destination serves TLS
verify = true                             # of the destination's certificate
# trusted_certificate = "/etc/ssl/certs/ca-certificates.crt"   # as NGINX sees the file

[register]
core = "co1"                              # below the domain
domain = "example.com"
answer_s = 60                             # how long a restarted DNS server may take to answer with the new address

[[register.hosts]]
name = "master"
root = "/var/pryv"
ssh = {{ host = "reg.example.com", user = "root", identities = ["~/.ssh/migration"] }}
dns_file = "{dns_file}"
# register_file = "{register_file}"   # changed as well where it has an entry for the core
restart = "{register_start}"
dns = "192.0.2.30:53"

# [probe]
# url = "https://{{username}}.example.com"
# accounts = [{{ username = "probe", password_file = "/etc/sync-client/probe-password" }}]   # or password_env = "NAME"
# origin = "https://sw.example.com"       # what the core lets log in, with app_id = "sync-client"
# ca_file = "/etc/ssl/certs/ca-certificates.crt"   # who signed the cores' certificates; verify = false: take any
# marker = "sync-probe"                   # the stream that is made, and how its events begin
# series = true                           # a high-frequency series too
# timeout_s = 30
"#
    )
}

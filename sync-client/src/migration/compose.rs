//! What a compose file says of images, ports and volumes. YAML is read with a bound on aliases; nothing else of it is used.

use super::plan::Plan;
use saphyr::{LoadableYamlNode as _, Yaml};
use std::path::{Path, PathBuf};

/// A compose file's services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Compose {
    pub(crate) services: Vec<Service>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) image: Option<String>,
    pub(crate) volumes: Vec<Volume>,
    /// Published ports of the host.
    pub(crate) ports: Vec<u16>,
}

/// A volume that the service may write to, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) source: Source,
    pub(crate) is_read_only: bool,
}

/// Where a volume's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A path of the host, as written: relative to the compose file.
    Path(String),
    /// The container engine keeps it under this name.
    Named(String),
    /// The engine keeps it under no name.
    Anonymous(String),
}

/// Reads a compose file.
pub(crate) fn parse(text: &str) -> Result<Compose, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let services = documents.first().and_then(|document| document.as_mapping_get("services"));
    let services = services.and_then(Yaml::as_mapping).ok_or("it has no `services`")?;
    let mut compose = Compose::default();
    for (name, service) in services {
        let name = name.as_str().ok_or("a service without a name")?.to_owned();
        let image = service.as_mapping_get("image").and_then(Yaml::as_str).map(str::to_owned);
        let list =
            |key: &str| service.as_mapping_get(key).and_then(Yaml::as_vec).map_or(&[][..], Vec::as_slice);
        let volumes = list("volumes").iter().map(volume).collect::<Option<_>>();
        let volumes = volumes.ok_or_else(|| format!("service {name}: a volume that is not understood"))?;
        let ports = list("ports").iter().filter_map(port).collect();
        compose.services.push(Service { name, image, volumes, ports });
    }
    Ok(compose)
}

/// `SOURCE:TARGET[:MODE]`, `TARGET`, or a mapping.
fn volume(volume: &Yaml<'_>) -> Option<Volume> {
    let source = |text: &str| match text.chars().next() {
        Some('.' | '/' | '~' | '$') => Source::Path(text.to_owned()),
        _ => Source::Named(text.to_owned()),
    };
    if let Some(text) = volume.as_str() {
        let mut parts = text.split(':');
        let (first, target, mode) = (parts.next()?, parts.next(), parts.next().unwrap_or_default());
        let source = if target.is_some() { source(first) } else { Source::Anonymous(first.to_owned()) };
        return Some(Volume { source, is_read_only: mode.split(',').any(|word| word == "ro") });
    }
    let text = |key: &str| volume.as_mapping_get(key).and_then(Yaml::as_str);
    let is_read_only = volume.as_mapping_get("read_only").and_then(Yaml::as_bool).unwrap_or(false);
    let source = match (text("type")?, text("source")) {
        ("tmpfs" | "npipe", _) => {
            return Some(Volume { source: Source::Named("tmpfs".to_owned()), is_read_only: true });
        }
        ("bind", Some(path)) => Source::Path(path.to_owned()),
        (_, Some(name)) => Source::Named(name.to_owned()),
        (_, None) => Source::Anonymous(text("target")?.to_owned()),
    };
    Some(Volume { source, is_read_only })
}

/// The host's port of `[IP:]HOST:CONTAINER[/PROTOCOL]`.
fn port(port: &Yaml<'_>) -> Option<u16> {
    if let Some(published) = port.as_mapping_get("published") {
        let number = published.as_integer().map(|number| number.to_string());
        return number.or_else(|| published.as_str().map(str::to_owned))?.parse().ok();
    }
    let text = port.as_str()?;
    let mut parts = text.rsplit(':');
    let _container = parts.next()?;
    parts.next()?.parse().ok()
}

/// Writable volumes of a compose file at `path` on the source that the plan neither copies nor names as left.
pub(crate) fn unaccounted(plan: &Plan, compose: &Compose, path: &Path) -> Vec<String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for service in &compose.services {
        for volume in service.volumes.iter().filter(|volume| !volume.is_read_only) {
            let (is_accounted, text) = match &volume.source {
                Source::Path(text) => (is_path_accounted(plan, &plain(&directory.join(text))), text.clone()),
                Source::Named(name) => (is_left(plan, Path::new(name)), format!("{name} (a named volume)")),
                Source::Anonymous(target) => {
                    (is_left(plan, Path::new(target)), format!("{target} (an anonymous volume)"))
                }
            };
            let text = format!("{}: {text}", service.name);
            if !is_accounted && !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found
}

fn is_path_accounted(plan: &Plan, path: &Path) -> bool {
    plan.data.iter().any(|set| path.starts_with(plan.source_path(set))) || is_left(plan, path)
}

fn is_left(plan: &Plan, path: &Path) -> bool {
    let matches = |pattern: &Path| {
        let (mut pattern, mut path) = (pattern.components(), path.components());
        pattern.all(|wanted| path.next().is_some_and(|part| wanted == part || wanted.as_os_str() == "*"))
    };
    plan.left.iter().any(|left| matches(&left.below(&plan.source.root)) || matches(left.as_path()))
}

/// Without `.` and doubled slashes; `..` is kept, and then matches nothing.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != std::path::Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::super::plan::Layout;
    use super::*;

    const FILE: &str = r#"
version: '3'
services:
  proxy:
    image: "registry/nginx:1.3"
    ports: ["80:80", "127.0.0.1:443:443", 9000]
    volumes: &logs
      - ./core/nginx/conf/:/app/conf/:ro
      - ./core/nginx/log/:/app/log/
  database:
    image: registry/mongodb:3.6
    volumes:
      - ./core/mongodb/data/:/app/data/
      - type: bind
        source: ./core/mongodb/extra
        target: /extra
      - {type: volume, source: cache, target: /cache}
      - /var/lib/unnamed
  again: { volumes: *logs }
"#;

    fn plan() -> Plan {
        Plan::parse(&init::plan(Layout::Of2019), Path::new("plan.toml")).unwrap()
    }

    #[test]
    fn images_ports_and_volumes_are_found_in_every_notation() {
        let compose = parse(FILE).unwrap();
        assert_eq!(compose.services[0].image.as_deref(), Some("registry/nginx:1.3"));
        assert_eq!(compose.services[0].ports, [80, 443]);
        assert!(compose.services[0].volumes[0].is_read_only);
        assert_eq!(compose.services[2].volumes, compose.services[0].volumes);
    }

    #[test]
    fn every_writable_volume_is_copied_or_named_as_left() {
        let path = Path::new("/var/pryv/core.yml");
        let found = unaccounted(&plan(), &parse(FILE).unwrap(), path);
        assert_eq!(
            found,
            [
                "database: ./core/mongodb/extra",
                "database: cache (a named volume)",
                "database: /var/lib/unnamed (an anonymous volume)"
            ]
        );
        let mut plan = plan();
        plan.data.retain(|set| set.name.as_str() != "mongodb");
        let found = unaccounted(&plan, &parse(FILE).unwrap(), path);
        assert_eq!(found[0], "database: ./core/mongodb/data/");
    }

    #[test]
    fn what_is_no_compose_file_is_refused() {
        for text in [
            "",
            "services: 7",
            "a: b",
            "services:\n  x:\n    volumes: [[1]]",
            "services: {x: {image: *none}}",
            "\t- :",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}

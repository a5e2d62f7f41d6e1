//! `--prune-empty-dirs`: whether anything of a directory would be copied.
//!
//! The source lists a directory before it knows what is below, so it looks ahead, and no further than to the first
//! entry that is copied and is no directory. Directories that lead to one are looked into again when they are listed;
//! whole trees without a file are looked into once for each level above them that is kept.

use crate::error::SessionError;
use crate::scan::{Job, Scan, Share};
use crate::tree::{Info, Walk};
use protocol::filter::Side;
use protocol::path::{Name, RelPath};

impl Scan<'_> {
    /// Whether something below a directory is copied that is no directory, or a directory that a rule protects at the
    /// destination. What can't be looked at counts as something: the listing reports it.
    pub(crate) fn holds_anything(&self, job: &Job) -> Result<bool, SessionError> {
        let first = job.shares.iter().map(|share| (job.path.clone(), share.clone(), Vec::new()));
        let mut todo: Vec<(RelPath, Share, Vec<Inode>)> = first.collect();
        while let Some((path, share, above)) = todo.pop() {
            let origin = &self.sources.origins[usize::from(share.origin)];
            if let Some((name, _)) = origin.implied(&path) {
                todo.push((path.join(name), share, above));
                continue;
            }
            let opened = origin.dir(&mut Walk::default(), &path).and_then(|dir| {
                let names = share.wanted.names(&dir)?;
                Ok((dir.own_info()?, dir, names))
            });
            let Ok((own, dir, names)) = opened else { return Ok(true) };
            let device = job.device;
            if device.is_some_and(|device| device != own.device) || above.contains(&inode(&own)) {
                continue;
            }
            let chain = self.chain(&share, &dir, &path)?;
            for name in names.iter() {
                let Ok(name) = Name::new(name) else { continue };
                let Ok((info, _)) = self.info(&dir, share.origin, &path, &name) else { return Ok(true) };
                let below = path.join(&name);
                let is_left_out = !share.wanted.is_named(name.as_bytes())
                    && self.filter(&share, chain.as_ref()).excludes(below.as_bytes(), info.is_dir());
                if is_left_out {
                    continue;
                }
                if !info.is_dir() || self.is_protected(&share, &below) {
                    return Ok(true);
                }
                // Only where links are followed can a directory be its own parent.
                let mut above = above.clone();
                if self.options.links.followed.any() {
                    above.push(inode(&own));
                }
                let wanted = share.wanted.below(name.as_bytes());
                todo.push((below, Share { origin: share.origin, wanted, chain: chain.clone() }, above));
            }
        }
        Ok(false)
    }

    /// Whether a rule of the operator keeps a directory of this name at the destination: it is made there, too.
    pub(crate) fn is_protected(&self, share: &Share, path: &RelPath) -> bool {
        let filter = self.filter(share, None);
        protocol::filter::Filter { side: Side::Receiver, ..filter }.excludes(path.as_bytes(), true)
    }
}

type Inode = ((u32, u32), u64);

fn inode(info: &Info) -> Inode {
    (info.device, info.inode)
}

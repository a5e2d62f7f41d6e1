//! What CVS ignores, and with it `-C`.

/// The names that are built in, as words.
///
/// # Source
/// rsync(1), `--cvs-exclude`.
pub(super) const NAMES: &[u8] = b"RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* \
    _$* *$ *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core .svn/ .git/ .hg/ .bzr/";

/// The per-directory file that CVS reads.
pub(super) const FILE: &[u8] = b".cvsignore";

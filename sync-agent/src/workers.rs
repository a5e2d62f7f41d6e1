//! Threads of one session: they end together, and a panic in one of them is never a success.

use crate::error::SessionError;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

/// Where the threads of a session say that it is over.
#[derive(Debug)]
pub(crate) struct Failure {
    first: Mutex<Option<SessionError>>,
    raise: Sender<()>,
    /// Readable once a thread failed.
    pub(crate) raised: Receiver<()>,
}

impl Failure {
    pub(crate) fn new() -> Failure {
        let (raise, raised) = bounded(1);
        Failure { first: Mutex::new(None), raise, raised }
    }

    /// Keeps the first error and wakes whoever waits for one.
    pub(crate) fn raise(&self, error: SessionError) {
        lock(&self.first).get_or_insert(error);
        let _ = self.raise.try_send(());
    }

    /// The error that was raised first.
    pub(crate) fn take(&self) -> Option<SessionError> {
        lock(&self.first).take()
    }
}

/// Starts a thread whose error or panic ends the session.
pub(crate) fn spawn<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    name: &'static str,
    failure: &'env Failure,
    work: impl FnOnce() -> Result<(), SessionError> + Send + 'scope,
) {
    let run = move || match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failure.raise(error),
        Err(_) => failure.raise(SessionError::Panic(name)),
    };
    let started = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
    if let Err(error) = started {
        failure.raise(SessionError::io(format!("start the {name} thread"), error));
    }
}

/// The content of a mutex, also after a panic: the session is over then, and nothing is committed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A timer that is right to some microseconds.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe;

/// One client's timer for when its next operation is due.
///
/// tokio's own counts in milliseconds and rounds up: an open loop would be late each time by more than a small request
/// takes, and that would stand in every latency. So this is the kernel's, as a descriptor (`timerfd_create(2)`).
pub(super) struct Timer {
    /// Read as tokio reads a pipe: of all descriptors, it takes only these without knowing what they are.
    descriptor: Option<pipe::Receiver>,
}

impl Timer {
    /// Must be made inside a runtime. Where there is no descriptor left, this is tokio's timer after all.
    pub(super) fn new() -> Self {
        Self { descriptor: Self::make().ok() }
    }

    fn make() -> io::Result<pipe::Receiver> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        pipe::Receiver::from_owned_fd_unchecked(descriptor)
    }

    /// Waits for so long.
    pub(super) async fn pause(&self, time: Duration) {
        let waited = match &self.descriptor {
            Some(descriptor) => wait(descriptor, time).await,
            None => Err(ErrorKind::Unsupported.into()),
        };
        if waited.is_err() {
            tokio::time::sleep(time).await;
        }
    }
}

async fn wait(descriptor: &pipe::Receiver, time: Duration) -> io::Result<()> {
    const NEVER_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    // No time at all would not set the timer, but stop it.
    let time = time.max(Duration::from_nanos(1));
    let it_value = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let when = Itimerspec { it_interval: NEVER_AGAIN, it_value };
    timerfd_settime(descriptor, TimerfdTimerFlags::empty(), &when)?;
    let mut expirations = [0; 8];
    loop {
        descriptor.readable().await?;
        match descriptor.try_read(&mut expirations) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_fires_each_time_and_never_early() {
        let timer = Timer::new();
        assert!(timer.descriptor.is_some());
        for micros in [0, 50, 2_000] {
            let (start, time) = (Instant::now(), Duration::from_micros(micros));
            timer.pause(time).await;
            assert!(start.elapsed() >= time, "{micros} us");
        }
        wait(timer.descriptor.as_ref().unwrap(), Duration::from_micros(10)).await.unwrap();
    }
}

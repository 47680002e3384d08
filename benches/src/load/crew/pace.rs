//! When a stream may send: at once, or when the schedule says so.
//!
//! Always: with a rate, what is due goes to whichever stream has been idle longest, and what is due
//! while none is idle counts from when it was due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::Desk;
use crate::load::Settings;
use crate::load::schedule::Schedule;

/// `None`: closed loop.
pub(super) struct Pace(Option<Queue>);

struct Queue {
    schedule: RefCell<Schedule>,
    /// Since when each request counts that may go now.
    due: RefCell<VecDeque<u64>>,
    /// Streams without anything to do.
    idle: Cell<usize>,
    work: Notify,
    came_idle: Notify,
}

impl Pace {
    pub(super) fn of(settings: &Settings, source: u8) -> Pace {
        Pace((settings.rate > 0.0).then(|| Queue {
            schedule: RefCell::new(Schedule::new(
                settings.arrivals,
                settings.rate,
                settings.seed ^ u64::from(source),
            )),
            due: RefCell::default(),
            idle: Cell::new(0),
            work: Notify::new(),
            came_idle: Notify::new(),
        }))
    }

    pub(super) fn is_closed_loop(&self) -> bool {
        self.0.is_none()
    }

    /// Waits until a stream may send; since when that request counts. `None`: no more.
    pub(super) async fn turn(&self, desk: &Desk) -> Option<u64> {
        let Some(queue) = &self.0 else {
            return (!desk.is_stopping.get()).then(|| desk.now());
        };
        queue.idle.set(queue.idle.get() + 1);
        queue.came_idle.notify_one();
        loop {
            if desk.is_stopping.get() {
                return None;
            }
            if let Some(since) = queue.due.borrow_mut().pop_front() {
                return Some(since);
            }
            queue.work.notified().await;
        }
    }

    /// Deals out what is due, until the load stops.
    pub(super) async fn serve(&self, desk: &Desk) {
        let Some(queue) = &self.0 else { return };
        let clock = match Clock::new() {
            Ok(clock) => clock,
            Err(error) => {
                let problem = format!("the load has no timer, and sends nothing: {error}");
                desk.tally.borrow_mut().problem(problem);
                return;
            }
        };
        let mut is_held_up = false;
        while !desk.is_stopping.get() {
            let (next, now) = (queue.schedule.borrow().next(), desk.now());
            if next > now {
                clock.sleep(Duration::from_nanos(next - now)).await;
            } else if queue.idle.get() == 0 {
                is_held_up = true;
                queue.came_idle.notified().await;
            } else {
                if !std::mem::take(&mut is_held_up) {
                    desk.tally.borrow().late((now - next) / 1000);
                }
                queue.idle.set(queue.idle.get() - 1);
                queue.due.borrow_mut().push_back(next);
                queue.work.notify_one();
                queue.schedule.borrow_mut().advance();
            }
        }
    }

    /// Lets everybody see that the load stops.
    pub(super) fn stop(&self) {
        if let Some(queue) = &self.0 {
            queue.work.notify_waiters();
            queue.came_idle.notify_one();
        }
    }
}

/// A timer of the kernel's: tokio's own counts in milliseconds, which is too coarse for a rate.
struct Clock(AsyncFd<OwnedFd>);

impl Clock {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, and no descriptor is replaced or closed under it here"
    )]
    fn new() -> std::io::Result<Clock> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Clock(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Up to a second: whoever waits longer comes again, and sees meanwhile whether it is over.
    async fn sleep(&self, duration: Duration) {
        let duration = duration.min(Duration::from_secs(1));
        let value = Timespec {
            tv_sec: duration.as_secs() as i64,
            tv_nsec: duration.subsec_nanos().max(1).into(),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let set = timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once);
        set.expect("the duration is valid");
        let Ok(mut ready) = self.0.readable().await else { return };
        let _ = rustix::io::read(self.0.get_ref(), &mut [0u8; 8]);
        ready.clear_ready();
    }
}

//! How far a long command is: a bar with rate and ETA on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use duramen_restore::{Observer, Step};
use duramen_types::{Clock, SystemClock, counted};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the steps of one command on standard error; nothing is left of a bar when it is dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    pub observer: Observer,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        if std::io::stderr().is_terminal() { Self::bar(what) } else { Self::lines(what) }
    }

    fn bar(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{msg} {spinner} {bytes} {bytes_per_sec}, {elapsed}"));
        bar.set_message(what);
        let shown = bar.clone();
        let done = AtomicU64::new(0);
        let observer = Observer::new(move |step| match step {
            Step::Planned { bytes, .. } => {
                shown.set_style(style("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}"));
                shown.set_length(bytes);
            }
            Step::Done { objects, bytes } => {
                shown.inc(bytes);
                if objects > 0 {
                    let done = done.fetch_add(objects, Ordering::Relaxed).saturating_add(objects);
                    shown.set_message(format!("{what}, {}", counted(done, "object")));
                }
            }
        });
        Self { bar: Some(bar), observer }
    }

    fn lines(what: &'static str) -> Self {
        let clock = SystemClock::new();
        let lines = Arc::new(Mutex::new(Lines::default()));
        let observer = Observer::new(move |step| {
            let mut lines = lines.lock();
            lines.take(step);
            let now = clock.monotonic();
            if now.saturating_sub(lines.printed) >= LINE_EVERY {
                lines.printed = now;
                eprintln!("{what}: {}", lines.text(now));
            }
        });
        Self { bar: None, observer }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[derive(Default)]
struct Lines {
    total: Option<(u64, u64)>,
    objects: u64,
    bytes: u64,
    printed: Duration,
}

impl Lines {
    fn take(&mut self, step: Step) {
        match step {
            Step::Planned { objects, bytes } => self.total = Some((objects, bytes)),
            Step::Done { objects, bytes } => {
                self.objects = self.objects.saturating_add(objects);
                self.bytes = self.bytes.saturating_add(bytes);
            }
        }
    }

    fn text(&self, elapsed: Duration) -> String {
        let rate = self.bytes.checked_div(elapsed.as_secs().max(1)).unwrap_or_default();
        let mib = |bytes: u64| bytes >> 20;
        match self.total {
            Some((objects, bytes)) => {
                let left = bytes.saturating_sub(self.bytes).checked_div(rate.max(1)).unwrap_or_default();
                let (done, size, rate) = (mib(self.bytes), mib(bytes), mib(rate));
                format!(
                    "{} of {}, {done} of {size} MiB, {rate} MiB/s, ETA {left} s",
                    self.objects,
                    counted(objects, "object")
                )
            }
            None => {
                let objects = counted(self.objects, "object");
                format!("{objects}, {} MiB, {} MiB/s", mib(self.bytes), mib(rate))
            }
        }
    }
}

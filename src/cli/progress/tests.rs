use std::time::Instant;

use indicatif::TermLike;

use super::*;

fn amount(files: u64, bytes: u64) -> Amount {
    Amount { files, bytes }
}

/// A terminal that keeps what is written to it.
#[derive(Clone, Debug, Default)]
struct Paper(Arc<Mutex<String>>);

impl Paper {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn push(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().push_str(text);
        Ok(())
    }
}

impl TermLike for Paper {
    fn width(&self) -> u16 {
        100
    }
    fn height(&self) -> u16 {
        50
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, line: &str) -> io::Result<()> {
        self.push(line)?;
        self.push("\n")
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for(paper: &Paper, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !paper.text().contains(wanted) {
        assert!(Instant::now() < deadline, "{wanted:?} was not drawn: {:?}", paper.text());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn on_paper() -> (Bars, Paper) {
    let paper = Paper::default();
    let bars = Bars::on(ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 200));
    (bars, paper)
}

#[test]
fn what_a_peer_reports_never_goes_back_or_beyond_the_plan() {
    let mut numbers = Numbers::default();
    numbers.planned("web1", amount(10, 1000));
    numbers.phase("web1", Phase::Sending);
    numbers.progress("web1", amount(3, 400));
    numbers.progress("web1", amount(2, 500));
    assert_eq!(numbers.done, amount(3, 500));
    numbers.progress("web1", amount(u64::MAX, u64::MAX));
    assert_eq!(numbers.done, amount(10, 1000));
    numbers.progress("web1", amount(0, 0));
    assert_eq!(numbers.done, amount(10, 1000));
}

#[test]
fn the_total_comes_to_its_end_whatever_becomes_of_the_hosts() {
    let mut numbers = Numbers::default();
    for (host, phase) in [("short", Phase::Sending), ("dry", Phase::Waiting), ("failed", Phase::Sending)] {
        numbers.planned(host, amount(10, 1000));
        numbers.phase(host, phase);
    }
    numbers.progress("short", amount(9, 900));
    numbers.progress("failed", amount(1, 100));
    numbers.phase("short", Phase::Done);
    numbers.phase("dry", Phase::Done);
    numbers.phase("failed", Phase::Failed);
    assert_eq!(numbers.done, amount(11, 1100));
    assert_eq!(numbers.planned, numbers.done);
    assert_eq!(numbers.over, 3);
}

#[test]
fn the_next_root_adds_to_the_total_and_starts_the_hosts_anew() {
    let mut numbers = Numbers::default();
    for _ in 0..2 {
        numbers.phase("web1", Phase::Connecting);
        assert_eq!(numbers.over, 0);
        numbers.scanned = Some(7);
        numbers.planned("web1", amount(1, 100));
        assert_eq!(numbers.scanned, None);
        numbers.phase("web1", Phase::Sending);
        numbers.phase("web1", Phase::Committing);
        numbers.phase("web1", Phase::Done);
    }
    assert_eq!(numbers.done, amount(2, 200));
    assert_eq!(numbers.planned, amount(2, 200));
    assert_eq!(numbers.hosts.len(), 1);
    assert_eq!(numbers.hosts[0].done, amount(1, 100));
}

#[test]
fn hosts_keep_their_order_and_the_many_are_in_the_total_only() {
    let mut numbers = Numbers::default();
    for number in (0..25).rev() {
        numbers.phase(&format!("web{number}"), Phase::Connecting);
    }
    let picture = numbers.picture();
    assert_eq!(picture.hosts.len(), SHOWN_HOSTS);
    assert_eq!(picture.hosts[0].name, "web24");
    assert_eq!(picture.total_message(), "0/0 files  0/25 hosts and 5 more");
}

#[test]
fn every_stage_is_drawn_and_hostile_names_are_escaped() {
    let (bars, paper) = on_paper();
    bars.scanned(1234);
    wait_for(&paper, "scanning 1,234 entries");
    let hostile = "w\x1b[2J\n\u{202e}";
    bars.phase(hostile, Phase::Connecting);
    wait_for(&paper, "w\\u{1b}[2J\\n\\u{202e}  connecting");
    bars.planned("web1", 4, 4096);
    bars.phase("web1", Phase::Sending);
    bars.progress("web1", 1, 1024);
    wait_for(&paper, "1.00 KiB/4.00 KiB  1/4 files");
    wait_for(&paper, "0/2 hosts");
    bars.phase("web1", Phase::Done);
    wait_for(&paper, "done: 4 files, 4.00 KiB");
    bars.phase(hostile, Phase::Failed);
    wait_for(&paper, "2/2 hosts");
    bars.finish();
    let text = paper.text();
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
    bars.phase("late", Phase::Connecting);
    bars.finish();
    assert!(!paper.text().contains("late"));
}

#[test]
fn many_threads_may_report_at_a_time() {
    let (bars, _paper) = on_paper();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let bars = &bars;
            scope.spawn(move || {
                let host = format!("web{number}");
                bars.planned(&host, 1000, 1000);
                bars.phase(&host, Phase::Sending);
                (1..=1000).for_each(|done| bars.progress(&host, done, done));
                bars.phase(&host, Phase::Done);
            });
        }
    });
    let drawn = bars.0.as_ref().unwrap();
    assert_eq!(drawn.shared.lock().numbers.done, amount(8000, 8000));
}

#[test]
fn without_bars_everything_is_taken_and_nothing_is_drawn() {
    let bars = Bars::new(false);
    assert!(bars.0.is_none());
    bars.scanned(1);
    bars.phase("web1", Phase::Sending);
    bars.planned("web1", 1, 1);
    bars.progress("web1", 1, 1);
    bars.finish();
}

#[test]
fn long_names_leave_room_for_the_rest() {
    assert_eq!(shortened("web1"), "web1");
    assert_eq!(shortened(&"é".repeat(NAME_CHARS)).chars().count(), NAME_CHARS);
    let long = shortened(&"é".repeat(NAME_CHARS + 1));
    assert_eq!(long.chars().count(), NAME_CHARS);
    assert!(long.ends_with('…'));
    assert_eq!(shortened("/a/long/way/to/the/destination"), "…/to/the/destination");
}

//! Where the plans of all hosts meet, once, before anything changes.
//!
//! Two things need all plans side by side: the guard, which refuses for all or for none, and the
//! bundling of content, so that what several hosts need is read and encoded once. Waiting for all must
//! not mean waiting for the sick: see [`patience`]. A host that comes later is guarded alone and takes
//! part in the bundles whose content it needs whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::signatures::{SharedSignatures, SignatureQuery};
use super::source::Source;
use crate::model::{Listing, RelPath};
use crate::payload::{EncodeJob, Log, LogReader, NoSignatures, Outcome, Signatures, encode};
use crate::plan::guard::{self, DeleteLimit, GuardOptions, GuardRefusal, GuardedHost, Ownership};
use crate::plan::{Basis, Item, Plan, Runs};

/// zstd's level for content that travels: the fastest of the regular ones. Higher ones cost a
/// primary more time than they save a link.
const LEVEL: i32 = 1;

/// What the guard allows.
#[derive(Clone, Debug)]
pub struct GuardSettings {
    /// The most that may be deleted on each host.
    pub max_delete: DeleteLimit,
    /// Ids of plans that were confirmed.
    pub confirmed: Vec<String>,
    /// Destinations that the fleet has not used may be taken.
    pub adopt: bool,
}

/// A host's plan, brought to the meeting.
pub(super) struct Brought {
    pub(super) plan: Arc<Plan>,
    /// What the plan refers to.
    pub(super) listing: Arc<Listing>,
    /// Whose the destination is.
    pub(super) ownership: Ownership,
    /// Where the host's signatures can be asked for.
    pub(super) signatures: mpsc::UnboundedSender<SignatureQuery>,
    pub(super) verdict: oneshot::Sender<Verdict>,
}

/// What became of it.
pub(super) enum Verdict {
    /// Go on, with this content.
    Go(Vec<LogReader>),
    /// Nothing may be changed.
    Refused(GuardRefusal),
}

/// What a session says to the meeting.
pub(super) enum Event {
    /// The host answers.
    Welcomed(usize),
    /// The host's plan is made.
    Planned(usize, Brought),
    /// The host will bring no plan.
    Gone(usize),
}

/// What came of the meeting.
#[derive(Default)]
pub(super) struct Meeting {
    /// The guard's refusal, if it refused for all.
    pub(super) refused: Option<GuardRefusal>,
    /// What came of the encoding.
    pub(super) outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Welcomed,
    Here,
    Gone,
}

/// Some content and who reads it.
struct Bundle {
    items: Arc<Runs<Item>>,
    listing: Arc<Listing>,
    log: Arc<Log>,
}

/// Inputs of the meeting.
pub(super) struct Agenda {
    /// What to call the root.
    pub(super) label: String,
    pub(super) settings: GuardSettings,
    /// The hosts' names.
    pub(super) names: Vec<String>,
    /// Whether each host is reached over a network.
    pub(super) remote: Vec<bool>,
    /// Plans are wanted, content is not.
    pub(super) dry_run: bool,
    pub(super) source: Arc<Source>,
    /// The source is another one than before.
    pub(super) exchanged: bool,
    /// Where something was mounted in the source, and is not now.
    pub(super) unmounted: BTreeSet<RelPath>,
    pub(super) started: Instant,
}

/// How long those that are here wait for those that are not.
///
/// A host that answers is alive: it gets as long again as the slowest of the others took. One that
/// does not even answer gets a sixth of that, so that a dead host costs the others next to nothing.
fn patience(elapsed: Duration, someone_is_welcomed: bool) -> Duration {
    if someone_is_welcomed { elapsed + Duration::from_millis(250) } else { elapsed / 6 + Duration::from_millis(20) }
}

/// Runs the meeting until every host has come or gone.
pub(super) async fn meet(agenda: Agenda, mut events: mpsc::UnboundedReceiver<Event>) -> Meeting {
    let mut room = Room {
        stages: vec![Stage::Connecting; agenda.names.len()],
        waiting: Vec::new(),
        bundles: Vec::new(),
        sealed: None,
        encoders: Vec::new(),
        closed: false,
        agenda,
    };
    let mut latest = None;
    while room.stages.iter().any(|stage| *stage != Stage::Gone) {
        let deadline = latest.filter(|_| room.sealed.is_none()).map(|latest: Instant| {
            latest + patience(latest - room.agenda.started, room.stages.contains(&Stage::Welcomed))
        });
        let event = match deadline {
            None => events.recv().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(event) => event,
                Err(_) => {
                    room.seal();
                    continue;
                }
            },
        };
        match event {
            None => break,
            Some(Event::Welcomed(host)) => room.stages[host] = Stage::Welcomed,
            Some(Event::Gone(host)) => room.stages[host] = Stage::Gone,
            Some(Event::Planned(host, brought)) => {
                latest = Some(Instant::now());
                room.stages[host] = Stage::Here;
                room.waiting.push((host, brought));
                if room.sealed.is_some() {
                    room.decide();
                }
            }
        }
        if room.stages.iter().all(|stage| matches!(stage, Stage::Here | Stage::Gone)) {
            room.seal();
            room.close();
        }
    }
    room.seal();
    room.close();
    room.finish().await
}

struct Room {
    agenda: Agenda,
    stages: Vec<Stage>,
    waiting: Vec<(usize, Brought)>,
    bundles: Vec<Bundle>,
    /// Whether the guard has spoken, and how.
    sealed: Option<Option<GuardRefusal>>,
    encoders: Vec<(Arc<Log>, tokio::task::JoinHandle<()>)>,
    /// Every host has brought a plan or is gone. One that comes again gets content of its own.
    closed: bool,
}

impl Room {
    fn seal(&mut self) {
        if self.sealed.is_none() {
            self.waiting.sort_by_key(|(host, _)| *host);
            self.sealed = Some(self.guard().err());
            self.decide();
        }
    }

    /// Whether the plans of those who wait may be carried out.
    fn guard(&self) -> Result<(), GuardRefusal> {
        let guarded = self.waiting.iter().map(|(host, brought)| GuardedHost {
            name: &self.agenda.names[*host],
            plan: &brought.plan,
            ownership: if self.agenda.settings.adopt { Ownership::Own } else { brought.ownership.clone() },
        });
        let settings = &self.agenda.settings;
        let options = GuardOptions {
            root: &self.agenda.label,
            max_delete: settings.max_delete,
            confirmed: &settings.confirmed,
            exchanged: self.agenda.exchanged,
            unmounted: &self.agenda.unmounted,
        };
        guard::check(&guarded.collect::<Vec<_>>(), &options)
    }

    /// Answers those who wait. Those who came after the seal are guarded here.
    fn decide(&mut self) {
        let refused = match &self.sealed {
            Some(Some(refusal)) => Some(refusal.clone()),
            _ => self.guard().err(),
        };
        let waiting = std::mem::take(&mut self.waiting);
        if let Some(refusal) = refused {
            for (_, brought) in waiting {
                // A session that is gone needs no answer.
                let _ = brought.verdict.send(Verdict::Refused(refusal.clone()));
            }
            return;
        }
        let mut readers: Vec<Vec<LogReader>> = waiting.iter().map(|_| Vec::new()).collect();
        if !self.agenda.dry_run {
            let mut needs = needs(&waiting);
            needs.iter_mut().for_each(|need| self.join_bundles(need, &mut readers));
            self.make_bundles(&waiting, needs, &mut readers);
        }
        for ((_, brought), readers) in waiting.into_iter().zip(readers) {
            let _ = brought.verdict.send(Verdict::Go(readers));
        }
    }

    /// Gives the hosts of `need` the bundles of which they need everything; what else they need remains.
    fn join_bundles(&self, need: &mut Need, readers: &mut [Vec<LogReader>]) {
        if self.bundles.is_empty() {
            return;
        }
        let mut left: HashSet<Key> = need.items.iter().map(|item| key(&item, &need.listing)).collect();
        for bundle in self.bundles.iter().filter(|bundle| !bundle.items.is_empty()) {
            if bundle.items.iter().all(|item| left.contains(&key(&item, &bundle.listing))) {
                bundle.items.iter().for_each(|item| {
                    left.remove(&key(&item, &bundle.listing));
                });
                need.places.iter().for_each(|place| readers[*place].push(bundle.log.reader()));
            }
        }
        let listing = Arc::clone(&need.listing);
        need.items.retain(|item| left.contains(&key(item, &listing)));
    }

    /// Bundles what is needed by the same hosts, and starts encoding it.
    fn make_bundles(&mut self, waiting: &[(usize, Brought)], needs: Vec<Need>, readers: &mut [Vec<LogReader>]) {
        for Need { items, listing, places } in by_hosts(needs) {
            let bundle = Bundle { items: Arc::new(items), listing, log: Log::new() };
            for place in &places {
                readers[*place].push(bundle.log.reader());
            }
            let candidates = places.iter().map(|place| waiting[*place].1.signatures.clone()).collect();
            let remote = places.iter().any(|place| self.agenda.remote[waiting[*place].0]);
            self.start(bundle, candidates, remote);
        }
    }

    fn start(&mut self, bundle: Bundle, candidates: Vec<mpsc::UnboundedSender<SignatureQuery>>, remote: bool) {
        let source = &self.agenda.source;
        let job = EncodeJob {
            root: Arc::clone(&source.root),
            listing: Arc::clone(&bundle.listing),
            items: Arc::clone(&bundle.items),
            signatures: Box::new(SharedSignatures::new(candidates, Arc::clone(&bundle.listing))) as Box<dyn Signatures>,
            readings: source.contents.readings(&bundle.items, &bundle.listing, source.unsent.clone()),
            attributes: source.attributes,
            level: remote.then_some(LEVEL),
            patient: source.patient,
        };
        self.encoders.push((Arc::clone(&bundle.log), spawn_encoder(job, &bundle.log)));
        if self.closed {
            bundle.log.close();
        } else {
            self.bundles.push(bundle);
        }
    }

    /// Everybody has come or gone: nothing needs to be kept for late ones any more.
    fn close(&mut self) {
        self.closed = true;
        self.agenda.source.contents.thaw();
        self.bundles.drain(..).for_each(|bundle| bundle.log.close());
    }

    async fn finish(self) -> Meeting {
        let mut outcomes = Vec::new();
        for (log, encoder) in self.encoders {
            // A panic in there is one for us too: it is reported by the runtime, and the log ends short,
            // which its readers notice.
            let _ = encoder.await;
            outcomes.push(log.outcome());
        }
        Meeting { refused: self.sealed.flatten(), outcomes }
    }
}

/// Ends a log however its encoder ends.
struct Ender(Arc<Log>);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Content, and the places (among those who wait) of the hosts that need all of it.
struct Need {
    /// In the order of the listing.
    items: Runs<Item>,
    /// What they refer to.
    listing: Arc<Listing>,
    places: Vec<usize>,
}

/// What an item is in any listing.
type Key = (RelPath, Option<Basis>);

fn key(item: &Item, listing: &Listing) -> Key {
    (item.entry.path(listing), item.basis)
}

/// What each host needs; hosts that need the same, by far the most frequent case, share one.
fn needs(waiting: &[(usize, Brought)]) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    for (place, (_, brought)) in waiting.iter().enumerate() {
        let files = brought.plan.files.iter();
        let items: Runs<Item> = files.map(|file| Item { entry: file.step.entry, basis: file.basis() }).collect();
        let same = |need: &&mut Need| Arc::ptr_eq(&need.listing, &brought.listing) && need.items == items;
        match needs.iter_mut().find(same) {
            Some(need) => need.places.push(place),
            None => needs.push(Need { items, listing: Arc::clone(&brought.listing), places: vec![place] }),
        }
    }
    needs
}

/// Cuts needs that overlap so that each item is in one of them only.
fn by_hosts(needs: Vec<Need>) -> Vec<Need> {
    let needs: Vec<Need> = needs.into_iter().filter(|need| !need.items.is_empty()).collect();
    if needs.len() < 2 {
        return needs;
    }
    let mut places_of: HashMap<Key, Vec<usize>> = HashMap::new();
    for need in &needs {
        for item in need.items.iter() {
            places_of.entry(key(&item, &need.listing)).or_default().extend(&need.places);
        }
    }
    let mut groups: BTreeMap<Vec<usize>, Need> = BTreeMap::new();
    for need in needs {
        for item in need.items.iter() {
            // Whoever comes first with an item takes it along for all.
            let Some(places) = places_of.remove(&key(&item, &need.listing)) else { continue };
            let group = groups.entry(places.clone());
            let listing = Arc::clone(&need.listing);
            group.or_insert_with(|| Need { items: Runs::default(), listing, places }).items.push(item);
        }
    }
    groups.into_values().collect()
}

fn spawn_encoder(job: EncodeJob, log: &Arc<Log>) -> tokio::task::JoinHandle<()> {
    let log = Arc::clone(log);
    tokio::task::spawn_blocking(move || {
        let ender = Ender(log);
        encode(job, &ender.0);
    })
}

/// A log of these files for one host alone, in full.
pub(super) fn private_log(source: &Source, listing: &Arc<Listing>, items: Runs<Item>, remote: bool) -> LogReader {
    let log = Log::new();
    let reader = log.reader();
    log.close();
    let job = EncodeJob {
        root: Arc::clone(&source.root),
        listing: Arc::clone(listing),
        readings: source.contents.readings(&items, listing, source.unsent.clone()),
        items: Arc::new(items),
        signatures: Box::new(NoSignatures),
        attributes: source.attributes,
        level: remote.then_some(LEVEL),
        patient: source.patient,
    };
    drop(spawn_encoder(job, &log));
    reader
}

/// The items of `plan` whose paths are in `paths`, without a basis.
pub(super) fn items_of(plan: &Plan, listing: &Listing, paths: &HashSet<RelPath>) -> Runs<Item> {
    let steps = plan.reuses.iter().map(|reuse| reuse.step).chain(plan.files.iter().map(|file| file.step));
    let entries = steps.map(|step| step.entry).filter(|entry| paths.contains(&entry.path(listing)));
    entries.map(|entry| Item { entry, basis: None }).collect()
}

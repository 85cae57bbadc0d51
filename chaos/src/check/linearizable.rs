//! Whether some order of the operations on one tag explains all answers (I3).
//!
//! The search of Wing and Gong (1993) with the memory of Lowe (2017): operations are put into an order one by one,
//! each within its own time, and a place in the search that was left before, which is the set of operations that are
//! in the order together with the value they leave, is not entered again. What makes it quick here is that no value
//! is set twice:
//!
//! - what only looks and fits goes into the order at once, since it cannot be in the way of anything;
//! - a value that is still to be seen must not be left, and one that is not wanted any more is left at once for
//!   any value that nobody saw;
//! - a change of unknown outcome whose value somebody saw did happen, before that answer came;
//! - one whose value nobody saw is left out, unless an answer says what the tag was *not*: then it may be what made
//!   the difference. It stays open to the end: it may happen at any time after it was sent, or never.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::history::{Operation, OperationKind, short};

/// How far a search may go.
#[derive(Clone, Copy, Debug)]
pub struct SearchLimits {
    /// Places in the search.
    pub places: usize,
    /// Time.
    pub time: Duration,
}

impl Default for SearchLimits {
    fn default() -> Self {
        // Places are the bound; the time is for a machine that is too busy to get through them.
        Self { places: 2_000_000, time: Duration::from_secs(120) }
    }
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// An order explains the history.
    Yes,
    /// None does.
    No,
    /// The search was given up: this says nothing.
    Unsure(String),
}

/// The value of a tag: 0 for one that is not there.
type Value = u32;
const ABSENT: Value = 0;

/// What an operation needs, and what it leaves.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// Any value becomes this one.
    Set(Value),
    /// Any value but absence becomes absence.
    Remove,
    /// This value becomes that one.
    Swap(Value, Value),
    /// This value stays.
    Is(Value),
    /// Any value but this one stays.
    IsNot(Value),
}

impl Effect {
    /// What is there after it; `None` if it cannot be at this place.
    fn after(self, value: Value) -> Option<Value> {
        match self {
            Self::Set(new) => Some(new),
            Self::Remove => (value != ABSENT).then_some(ABSENT),
            Self::Swap(from, to) => (value == from).then_some(to),
            Self::Is(seen) => (value == seen).then_some(value),
            Self::IsNot(other) => (value != other).then_some(value),
        }
    }

    fn only_looks(self) -> bool {
        matches!(self, Self::Is(_) | Self::IsNot(_))
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    effect: Effect,
    invoked: i64,
    returned: i64,
}

/// Looks for an order that explains the history of one tag that begins without a value.
///
/// # Errors
/// If the history is none: a value that was set twice, or seen and never set.
pub fn explain(history: &[Operation], limits: SearchLimits) -> Result<Explained, String> {
    let problem = Problem::of(history)?;
    Ok(Search::new(&problem, limits).run())
}

/// The history, ready for the search.
struct Problem {
    /// In the order of their sending.
    steps: Vec<Step>,
    /// Changes that may have happened, or not, after their sending.
    open: Vec<Step>,
    values: usize,
    /// Absence may come again.
    removes: bool,
    /// Some answers say what the tag was not.
    negative: bool,
}

impl Problem {
    fn of(history: &[Operation]) -> Result<Self, String> {
        let mut numbers: HashMap<&str, Value> = HashMap::new();
        for operation in history {
            if let Some(value) = operation.sets() {
                let number = Value::try_from(numbers.len() + 1).unwrap_or(Value::MAX);
                if numbers.insert(value, number).is_some() {
                    return Err(format!("{value} was set twice: the workload is wrong"));
                }
            }
        }
        // When each value was first seen to be there.
        let mut seen: HashMap<&str, i64> = HashMap::new();
        for operation in history {
            if let (Some(value), Some(returned)) = (operation.sees(), operation.returned) {
                if !numbers.contains_key(value) {
                    return Err(format!("{} was seen and never set", short(Some(value))));
                }
                let first = seen.entry(value).or_insert(returned);
                *first = (*first).min(returned);
            }
        }
        // A swap without an answer whose value was seen has itself seen what it was to replace.
        loop {
            let mut learned = false;
            for operation in history.iter().filter(|operation| operation.returned.is_none()) {
                if let OperationKind::Swap { from: Some(from), to } = &operation.kind
                    && let Some(time) = seen.get(to.as_str()).copied()
                    && seen.get(from.as_str()).is_none_or(|first| *first > time)
                {
                    seen.insert(from, time);
                    learned = true;
                }
            }
            if !learned {
                break;
            }
        }
        let number = |value: &Option<String>| match value {
            None => Some(ABSENT),
            Some(value) => numbers.get(value.as_str()).copied(),
        };
        // Of values that were never there it is no news that they are not.
        let never = Value::MAX;
        let negative = history.iter().any(|operation| {
            matches!(operation.kind, OperationKind::Differs(_) | OperationKind::Delete)
        });
        let mut problem = Self {
            steps: Vec::with_capacity(history.len()),
            open: Vec::new(),
            values: numbers.len() + 1,
            removes: false,
            negative,
        };
        for operation in history {
            let effect = match &operation.kind {
                OperationKind::Write(value) => {
                    Effect::Set(*numbers.get(value.as_str()).unwrap_or(&never))
                }
                OperationKind::Delete => Effect::Remove,
                OperationKind::Swap { from, to } => Effect::Swap(
                    number(from).unwrap_or(never),
                    *numbers.get(to.as_str()).unwrap_or(&never),
                ),
                OperationKind::Differs(value) => Effect::IsNot(number(value).unwrap_or(never)),
                OperationKind::Read(value) => Effect::Is(number(value).unwrap_or(never)),
            };
            problem.removes |= matches!(effect, Effect::Remove);
            let invoked = operation.invoked;
            let known = operation.sets().and_then(|value| seen.get(value).copied());
            let returned = match (operation.returned, known) {
                (Some(returned), Some(known)) => Some(returned.min(known)),
                (returned, known) => returned.or(known),
            };
            match returned {
                Some(returned) if returned < invoked => {
                    return Err(format!("seen before it began: {operation}"));
                }
                Some(returned) => problem.steps.push(Step { effect, invoked, returned }),
                // Nobody learned anything.
                None if effect.only_looks() => {}
                None if negative || matches!(effect, Effect::Remove) => {
                    problem.open.push(Step { effect, invoked, returned: i64::MAX });
                }
                None => {}
            }
        }
        problem.steps.sort_by_key(|step| step.invoked);
        problem.open.sort_by_key(|step| step.invoked);
        Ok(problem)
    }
}

/// A place in the search: everything before `base` is in the order, and the marked steps behind it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    base: usize,
    ahead: Vec<u64>,
    open: Vec<u64>,
    value: Value,
}

/// A choice that was made, and the others.
struct Choice {
    /// Steps that could come next: below the number of steps, else an open one.
    others: Vec<usize>,
    /// What is undone when this place is left: in the order since it was entered.
    entered: Vec<usize>,
    /// The value before.
    value: Value,
}

struct Search<'a> {
    problem: &'a Problem,
    limits: SearchLimits,
    done: Vec<bool>,
    base: usize,
    value: Value,
    /// How often each value is still to be seen.
    wanted: Vec<u32>,
    /// Whether it is seen at all.
    seen: Vec<bool>,
    visited: HashSet<Place>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, limits: SearchLimits) -> Self {
        let mut wanted = vec![0_u32; problem.values];
        for step in &problem.steps {
            if let Effect::Is(value) | Effect::Swap(value, _) = step.effect
                && let Some(count) = wanted.get_mut(value as usize)
            {
                *count += 1;
            }
        }
        Self {
            problem,
            limits,
            done: vec![false; problem.steps.len() + problem.open.len()],
            base: 0,
            value: ABSENT,
            seen: wanted.iter().map(|count| *count > 0).collect(),
            wanted,
            visited: HashSet::new(),
        }
    }

    fn run(mut self) -> Explained {
        let start = Instant::now();
        let mut choices: Vec<Choice> = Vec::new();
        let mut entered = Vec::new();
        let mut before = ABSENT;
        loop {
            self.absorb(&mut entered);
            if self.base == self.problem.steps.len() {
                return Explained::Yes;
            }
            let fresh = self.visited.insert(self.place());
            let others = if fresh { self.eligible() } else { Vec::new() };
            choices.push(Choice { others, entered: std::mem::take(&mut entered), value: before });
            if self.visited.len() > self.limits.places {
                return Explained::Unsure(format!("after {} places", self.visited.len()));
            }
            if self.visited.len().is_multiple_of(1_024) && start.elapsed() > self.limits.time {
                return Explained::Unsure(format!("after {:?}", self.limits.time));
            }
            // Back to the last place with another way to go.
            let next = loop {
                let Some(choice) = choices.last_mut() else { return Explained::No };
                if let Some(next) = choice.others.pop() {
                    break next;
                }
                let Some(left) = choices.pop() else { return Explained::No };
                for index in left.entered.iter().rev() {
                    self.undo(*index);
                }
                self.value = left.value;
            };
            before = self.value;
            self.put(next, &mut entered);
        }
    }

    fn step(&self, index: usize) -> Option<Step> {
        let steps = self.problem.steps.len();
        let step = match index.checked_sub(steps) {
            None => self.problem.steps.get(index),
            Some(open) => self.problem.open.get(open),
        };
        step.copied()
    }

    fn is_done(&self, index: usize) -> bool {
        self.done.get(index).copied().unwrap_or(true)
    }

    fn put(&mut self, index: usize, entered: &mut Vec<usize>) {
        let Some(step) = self.step(index) else { return };
        if let Some(value) = step.effect.after(self.value) {
            self.value = value;
        }
        self.mark(index, step, true);
        entered.push(index);
    }

    fn undo(&mut self, index: usize) {
        if let Some(step) = self.step(index) {
            self.mark(index, step, false);
        }
        if index < self.base {
            self.base = index;
        }
    }

    fn mark(&mut self, index: usize, step: Step, done: bool) {
        if let Some(slot) = self.done.get_mut(index) {
            *slot = done;
        }
        if index < self.problem.steps.len()
            && let Effect::Is(value) | Effect::Swap(value, _) = step.effect
            && let Some(count) = self.wanted.get_mut(value as usize)
        {
            *count = if done { count.saturating_sub(1) } else { *count + 1 };
        }
    }

    /// Whether anything that is not in the order yet needs the value that is there.
    fn is_wanted(&self) -> bool {
        self.problem.negative
            || self.wanted.get(self.value as usize).copied().unwrap_or_default() > 0
    }

    /// Whether nothing after it depends on it, if nothing depends on what it replaces.
    fn passes_unseen(&self, effect: Effect) -> bool {
        match effect {
            Effect::Set(new) => !self.seen.get(new as usize).copied().unwrap_or_default(),
            _ => false,
        }
    }

    /// Puts everything into the order that may come now and cannot be in the way of anything.
    fn absorb(&mut self, entered: &mut Vec<usize>) {
        loop {
            while self.base < self.problem.steps.len() && self.is_done(self.base) {
                self.base += 1;
            }
            let free = !self.is_wanted();
            let fits = |index: &usize| {
                self.step(*index).is_some_and(|step| {
                    let looks = step.effect.only_looks() && step.effect.after(self.value).is_some();
                    looks || (free && self.passes_unseen(step.effect))
                })
            };
            let fitting: Vec<usize> = self.now().into_iter().filter(fits).collect();
            if fitting.is_empty() {
                return;
            }
            for index in fitting {
                self.put(index, entered);
            }
        }
    }

    /// The steps that may come next: no other one has ended before they began.
    fn now(&self) -> Vec<usize> {
        let mut found = Vec::new();
        let mut horizon = i64::MAX;
        for (index, step) in self.problem.steps.iter().enumerate().skip(self.base) {
            if step.invoked > horizon {
                break;
            }
            if !self.is_done(index) {
                horizon = horizon.min(step.returned);
                found.push(index);
            }
        }
        // Some that were found early may begin after one that was found late has ended.
        found.retain(|index| self.step(*index).is_some_and(|step| step.invoked <= horizon));
        found
    }

    /// The changes that may come next, the most urgent one last.
    fn eligible(&self) -> Vec<usize> {
        let returns = self.wanted.get(self.value as usize).copied().unwrap_or_default();
        let swapped =
            |effect: Effect| matches!(effect, Effect::Swap(from, _) if from == self.value);
        let now = self.now();
        let horizon = now.iter().filter_map(|index| self.step(*index)).map(|step| step.returned);
        let horizon = horizon.min().unwrap_or(i64::MAX);
        let steps = self.problem.steps.len();
        let open = self.problem.open.iter().enumerate();
        let open =
            open.take_while(|(_, step)| step.invoked <= horizon).map(|(index, _)| steps + index);
        let mut found: Vec<usize> = now
            .into_iter()
            .chain(open)
            .filter(|index| !self.is_done(*index))
            .filter(|index| {
                let Some(step) = self.step(*index) else { return false };
                if step.effect.only_looks() || step.effect.after(self.value).is_none() {
                    return false;
                }
                // A value that does not come again and is still to be seen must not be left, but by the swap
                // that sees it.
                let comes_again = self.value == ABSENT && self.problem.removes;
                let own = u32::from(*index < steps && swapped(step.effect));
                comes_again || returns <= own
            })
            .collect();
        found.sort_by_key(|index| {
            let returned = self.step(*index).map_or(i64::MAX, |step| step.returned);
            std::cmp::Reverse(returned)
        });
        found
    }

    fn place(&self) -> Place {
        let steps = self.problem.steps.len();
        let bits = |range: std::ops::Range<usize>| {
            let mut words: Vec<u64> = Vec::new();
            let start = range.start;
            for index in range {
                if self.is_done(index) {
                    let (word, bit) = ((index - start) / 64, (index - start) % 64);
                    if words.len() <= word {
                        words.resize(word + 1, 0);
                    }
                    if let Some(word) = words.get_mut(word) {
                        *word |= 1 << bit;
                    }
                }
            }
            words
        };
        // Nothing is in the order that begins after the first one that is not has ended.
        let end = self.problem.steps.get(self.base).map_or(steps, |first| {
            self.problem.steps.partition_point(|step| step.invoked <= first.returned)
        });
        Place {
            base: self.base,
            ahead: bits(self.base..end.max(self.base)),
            open: bits(steps..self.done.len()),
            // What nobody needs any more makes no difference.
            value: if self.is_wanted() { self.value } else { Value::MAX },
        }
    }
}

#[cfg(test)]
#[path = "linearizable_tests.rs"]
mod tests;

#include "test/history/register_check.h"

#include <algorithm>
#include <set>
#include <utility>

namespace aionbd {
namespace {

/// The calls and returns not yet explained, in the order of time: a doubly linked list from which a
/// call is lifted together with its return, and into which it is put back.
class Events {
 public:
  struct Event {
    size_t call = 0;  // its number
    bool is_return = false;
    size_t match = 0;  // of a call: its return
    size_t before = 0, after = 0;
  };

  /// Event 0 is the head, and stands for the end as well.
  explicit Events(const std::vector<RegisterCall>& calls) : events_(1) {
    std::vector<std::pair<std::pair<uint64_t, bool>, size_t>> order;
    for (size_t i = 0; i < calls.size(); ++i) {
      order.push_back({{calls[i].called, false}, i});
      order.push_back({{calls[i].returned, true}, i});
    }
    std::sort(order.begin(), order.end());
    std::vector<size_t> place(calls.size());
    for (const auto& [time, call] : order) {
      const size_t at = events_.size();
      events_.push_back({call, time.second, 0, at - 1, 0});
      events_[at - 1].after = at;
      if (time.second) {
        events_[place[call]].match = at;
      } else {
        place[call] = at;
      }
    }
    events_[0].before = events_.size() - 1;
  }

  const Event& operator[](size_t at) const { return events_[at]; }
  size_t first() const { return events_[0].after; }
  void lift(size_t call) {
    unlink(call);
    unlink(events_[call].match);
  }
  void put_back(size_t call) {
    link(events_[call].match);
    link(call);
  }

 private:
  void unlink(size_t at) {
    events_[events_[at].before].after = events_[at].after;
    events_[events_[at].after].before = events_[at].before;
  }
  void link(size_t at) {
    events_[events_[at].before].after = at;
    events_[events_[at].after].before = at;
  }

  std::vector<Event> events_;
};

}  // namespace

Verdict check_register(const std::vector<RegisterCall>& calls, uint64_t initial,
                       uint64_t steps_max) {
  struct Step {
    size_t event;
    uint64_t value_before;
  };
  Events events(calls);
  uint64_t value = initial;
  std::vector<Step> steps;
  std::vector<bool> explained(calls.size());
  std::set<std::pair<std::vector<bool>, uint64_t>> tried;
  size_t at = events.first();
  // Writes that never returned may never have happened: once all else is explained, we are done.
  auto missing =
      static_cast<size_t>(std::count_if(calls.begin(), calls.end(), [](const RegisterCall& call) {
        return call.returned != kNeverReturned;
      }));
  for (uint64_t n = 0; missing > 0; ++n) {
    if (n == steps_max) return Verdict::kGaveUp;
    if (at != 0 && !events[at].is_return) {
      const RegisterCall& call = calls[events[at].call];
      if (call.is_write || call.value == value) {
        explained[events[at].call] = true;
        if (tried.insert({explained, call.is_write ? call.value : value}).second) {
          steps.push_back({at, value});
          if (call.is_write) value = call.value;
          if (call.returned != kNeverReturned) --missing;
          events.lift(at);
          at = events.first();
          continue;
        }
        explained[events[at].call] = false;
      }
      at = events[at].after;
      continue;
    }
    // A call that returned here cannot be explained after any of those open: take a step back.
    if (steps.empty()) return Verdict::kNot;
    const Step step = steps.back();
    steps.pop_back();
    value = step.value_before;
    explained[events[step.event].call] = false;
    if (calls[events[step.event].call].returned != kNeverReturned) ++missing;
    events.put_back(step.event);
    at = events[step.event].after;
  }
  return Verdict::kLinearizable;
}

}  // namespace aionbd

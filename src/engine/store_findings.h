// What the offline tools share: collecting findings, and progress over all bytes of a store.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/store.h"

namespace aionbd {

/// What a reader's error says, as a finding: the path and offset that its message carries move to
/// `file` and `offset`. `file` is where it was found if the message names none of `dir`.
StoreFinding finding_of(const Status& status, std::string_view dir, std::string_view file);

/// Keeps the first kFindingsMax, counts all. Thread safety: single owner.
class Findings {
 public:
  explicit Findings(std::string dir) : dir_(std::move(dir)) {}

  void add(StoreFinding finding);
  void damage(std::string_view file, std::optional<uint64_t> offset, std::string what) {
    add({FindingKind::kDamage, std::string(file), offset, std::move(what)});
  }
  void note(std::string_view file, std::optional<uint64_t> offset, std::string what) {
    add({FindingKind::kNote, std::string(file), offset, std::move(what)});
  }
  /// REQUIRES: !status.ok().
  void damage(std::string_view file, const Status& status) { add(finding_of(status, dir_, file)); }

  uint64_t damage_count() const { return damage_; }
  uint64_t notes_count() const { return notes_; }
  std::vector<StoreFinding> take() { return std::move(kept_); }

 private:
  const std::string dir_;
  std::vector<StoreFinding> kept_;
  uint64_t damage_ = 0;
  uint64_t notes_ = 0;
};

/// Bytes of several files as one run. Thread safety: single owner.
class ProgressMeter {
 public:
  ProgressMeter(const StoreProgress& progress, uint64_t total)
      : progress_(progress), total_(total) {}

  /// `bytes` more are done. Errors: unavailable when the caller wants to stop.
  Status advance(uint64_t bytes);
  /// The file that began at the last `settle` is done up to `bytes`; false: stop.
  bool within(uint64_t bytes) {
    return !progress_ || progress_(std::min(done_ + bytes, total_), total_);
  }

 private:
  const StoreProgress& progress_;
  const uint64_t total_;
  uint64_t done_ = 0;
};

}  // namespace aionbd

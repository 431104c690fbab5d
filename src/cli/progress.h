// Progress for people: a bar that redraws itself on a terminal, a plain line each few seconds
// elsewhere (logs, pipes).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace aionbd {

/// What there is to tell at one moment.
struct ProgressState {
  uint64_t rows = 0;
  uint64_t refused = 0;
  uint64_t bytes = 0;           // sent or written
  std::optional<double> share;  // done of the whole, 0..1
  bool counts_rows = true;      // false: bytes are all there is to count
};

/// "12,345", "1.5 GiB", "2 h 03 min": for people, never parsed.
std::string with_thousands(uint64_t number);
std::string human_bytes(uint64_t bytes);
std::string human_seconds(double seconds);

/// One line of progress, without colour or cursor codes; `bar_width` 0 leaves the bar out.
std::string progress_line(const ProgressState& state, double seconds, size_t bar_width);

/// Writes to stderr. Thread safety: single owner.
class Progress {
 public:
  enum class Style : uint8_t { kAuto, kQuiet };

  Progress(const Clock& clock, Style style);
  /// Draws if it is time to. Cheap otherwise.
  void update(const ProgressState& state);
  /// Removes the bar, so that the next line of text starts clean.
  void clear();
  double seconds() const;
  /// How long until `update` would draw again.
  std::chrono::milliseconds interval() const;

 private:
  const Clock& clock_;
  const bool quiet_;
  const bool terminal_;
  const MonotonicTime start_;
  MonotonicTime last_;
  bool drawn_ = false;
};

}  // namespace aionbd

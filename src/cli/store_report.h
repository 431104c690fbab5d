// How the commands that look at stores print what they found, and how far they are.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "aionbd/store.h"
#include "cli/progress.h"

namespace aionbd {

/// Appends a value as JSON, objects and arrays included. REQUIRES: strings are UTF-8.
void append_json_value(const Value& value, std::string* out);

/// Text from a file's bytes that a terminal can show and JSON can hold: what is not printable UTF-8
/// becomes '?'.
std::string printable(std::string_view text);

/// "damaged  0000000000000003.seg at offset 65536: block checksum differs".
std::string finding_line(const StoreFinding& finding);

/// [{"kind":..,"file":..,"offset":..,"what":..}, ...]
Value findings_value(std::span<const StoreFinding> findings);

/// Draws the progress of a store operation on a terminal, and stops it when a signal came.
/// Thread safety: single owner.
class StoreProgressBar {
 public:
  explicit StoreProgressBar(bool quiet);
  ~StoreProgressBar() { bar_.clear(); }
  /// Valid while this lives.
  StoreProgress callback();
  double seconds() const { return bar_.seconds(); }
  /// So that the next line of text starts clean.
  void clear() { bar_.clear(); }

 private:
  Progress bar_;
};

}  // namespace aionbd

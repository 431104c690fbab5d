// The rows of one part of a view that a request is about: those that are live and match its filter.
//
// A part with a field index answers with one bit per row: the index evaluates the whole filter by
// set operations, and dead rows are taken out. Where the index knows only an upper bound, the bits
// are a first test, and the payload decides. A part without an index is asked row by row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aionbd/status.h"
#include "engine/segment.h"
#include "payload/filter.h"

namespace aionbd {

/// Thread safety: immutable.
class WantedRows {
 public:
  /// Both must outlive it; no filter: every live row is wanted. Cost: with a field index, one
  /// evaluation of the filter and a bit per row; else nothing.
  WantedRows(const SegmentView& part, const CompiledFilter* filter);

  bool filtered() const { return filter_ != nullptr; }
  /// Whether every row is wanted.
  bool all() const { return !filtered() && part_->dead->count() == 0; }
  /// Whether a field index told what matches.
  bool indexed() const { return indexed_; }
  /// Whether `most` is the number of wanted rows, and `words` are they.
  bool exact() const { return !check_payload_; }
  /// Rows wanted, at most.
  uint64_t most() const { return most_; }
  /// REQUIRES: indexed(). A bit for each row that may be wanted, none for any other; a whole number
  /// of words.
  const uint64_t* words() const { return words_.data(); }

  /// Errors: corruption of a payload.
  Result<bool> contains(RowId row) const;
  /// Writes to `rows` the wanted rows of [first, first + count), ascending; returns how many.
  Result<size_t> select(RowId first, size_t count, RowId* rows) const;
  /// How many rows of [first, first + count) may be wanted, at most.
  size_t most_of(RowId first, size_t count) const;
  /// The first row from `row` on that may be wanted; the number of rows of the part if none is.
  RowId next(RowId row) const;

 private:
  const SegmentView* part_;
  const CompiledFilter* filter_;
  bool indexed_ = false;
  bool check_payload_ = false;
  uint64_t most_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace aionbd

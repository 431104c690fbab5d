// Rows, ids and payloads of one part of a collection, open or sealed, as readers see them.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "base/bytes.h"
#include "distance/row_values.h"
#include "engine/dead_rows.h"
#include "engine/row.h"
#include "index/vector_index.h"
#include "payload/field_index.h"

namespace aionbd {

/// Consecutive rows, readable in place.
struct RowBlock {
  RowValues values;                      // [count x dimension]
  const float* norms_squared = nullptr;  // float[count]
  size_t count = 0;
};

/// What of a segment is read in place; the rest is copied from its files, because it would not fit
/// in memory (pinning.h).
enum class Residency : uint8_t {
  kAll,
  kCodes,    // what walks over its indexes need
  kNothing,  // but small things, and ids and payloads
};

/// Thread safety: safe for rows below the visible count of the reader's view.
/// Every read may fail with corruption: sealed bytes are verified at first touch.
class Segment {
 public:
  virtual ~Segment() = default;

  virtual SegmentId id() const = 0;
  virtual bool sealed() const = 0;

  /// Rows from `first` on, as many as lie together, at most `limit` (>= 1).
  virtual Result<RowBlock> rows(RowId first, size_t limit) const = 0;
  /// Copies the values of rows [first, first + n), and their norms unless null, without making them
  /// resident. Errors: also io_error.
  virtual Status copy_rows(RowId first, size_t n, float* values, float* norms) const = 0;
  virtual Residency residency() const { return Residency::kAll; }
  /// How the values are kept; the name of a RowFormat.
  virtual std::string_view row_format() const { return "f32"; }
  /// The id in place: the 8 bytes of the number, or the text.
  virtual Result<Bytes> id_bytes(RowId row) const = 0;
  /// Asks for the id's bytes ahead of their use.
  virtual void prefetch_id(RowId) const {}
  /// The encoded payload, checked: check_payload holds.
  virtual Result<Bytes> payload(RowId row) const = 0;
  /// The newest row below `visible` that carries `id`, dead or alive.
  virtual Result<std::optional<RowId>> find(const PointId& id, RowId visible) const = 0;

  /// The index for a metric, if there is one ready.
  virtual std::shared_ptr<const VectorIndex> vector_index(Metric) const { return nullptr; }
  /// Codes that only bound or estimate distances, where there is no index yet: of all rows of a
  /// sealed segment, of the first ones of an open one.
  virtual std::shared_ptr<const VectorIndex> row_codes(Metric) const { return nullptr; }
  /// What audits measured of that index on real queries, filtered ones or others, if they found
  /// its own curve wrong.
  virtual std::shared_ptr<const MeasuredRecall> measured_recall(Metric, bool /*filtered*/) const {
    return nullptr;
  }
  /// For that index: its lists, copied from where they are.
  virtual std::shared_ptr<const ListReader> list_reader(Metric) const { return nullptr; }
  /// The index of the payloads, if there is one ready.
  virtual std::shared_ptr<const FieldIndex> field_index() const { return nullptr; }

  /// Some of its bytes could not be read; what was read of it since may be zeros.
  virtual bool failed() const { return false; }
  /// The same of an index that it has, or had.
  virtual bool index_failed() const { return false; }

  virtual uint64_t disk_bytes() const = 0;
  virtual uint64_t memory_bytes() const = 0;
};

/// The id that `id_bytes` holds.
inline PointId point_id_of(IdType type, Bytes id_bytes) {
  if (type == IdType::kString) return PointId(as_text(id_bytes));
  uint64_t number = 0;
  std::memcpy(&number, id_bytes.data(), sizeof(number));
  return PointId(number);
}

/// One segment in one view.
struct SegmentView {
  std::shared_ptr<const Segment> segment;
  RowId rows = 0;                        // visible: rows [0, rows)
  std::shared_ptr<const DeadRows> dead;  // never null
  size_t kills_count = 0;                // open segments: kills they had caused by then

  uint64_t live() const { return rows - dead->count(); }
};

/// The one with this id, if it is among them.
inline const SegmentView* find_segment(std::span<const SegmentView> segments, SegmentId id) {
  for (const SegmentView& view : segments) {
    if (view.segment->id() == id) return &view;
  }
  return nullptr;
}

/// Whether an index for any metric is open.
inline bool has_vector_index(const Segment& segment) {
  return segment.vector_index(Metric::kDot) != nullptr ||
         segment.vector_index(Metric::kL2) != nullptr ||
         segment.vector_index(Metric::kCosine) != nullptr;
}

/// One consistent state of a collection. Thread safety: immutable.
struct View {
  std::vector<SegmentView> segments;  // sealed ones, then frozen ones, the open one last
  uint64_t points = 0;                // live
};

}  // namespace aionbd

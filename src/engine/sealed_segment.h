// An immutable segment: rows in id order in a checksummed file, read where they lie.
//
// Because rows are sorted by id, the id column is its own index (binary search), listing is a merge
// of columns, and among equal distances the lower row is the lower id. Sections and their layout:
// docs/format.md, "Segment sections".
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/published.h"
#include "engine/row_format.h"
#include "engine/segment.h"
#include "storage/segment_file.h"

namespace aionbd {

/// The indexes of one segment. Thread safety: immutable.
struct SegmentIndexes {
  struct Entry {
    std::shared_ptr<SegmentFile> file;  // what the index reads in place
    std::shared_ptr<const VectorIndex> index;
    std::shared_ptr<const ListReader> lists;
  };
  struct Fields {
    std::shared_ptr<SegmentFile> file;
    std::optional<FieldIndex> index;
  };
  std::array<Entry, 3> by_metric;
  /// Of rows that have no index yet, made when they were sealed.
  std::array<std::shared_ptr<const VectorIndex>, 3> codes;
  Fields fields;
};

/// Thread safety: immutable, but for the indexes, which appear when they are ready.
class SealedSegment : public Segment {
 public:
  /// Reads and checks the small sections. Errors: corruption (also when dimension or id type differ
  /// from what the collection says).
  static Result<std::shared_ptr<const SealedSegment>> open(std::shared_ptr<SegmentFile> file,
                                                           uint32_t dimension, IdType id_type);

  SegmentId id() const override { return file_->id(); }
  bool sealed() const override { return true; }
  Result<RowBlock> rows(RowId first, size_t limit) const override;
  Status copy_rows(RowId first, size_t n, float* values, float* norms) const override;
  std::string_view row_format() const override { return format_.name; }
  Residency residency() const override { return residency_.load(std::memory_order_relaxed); }
  /// What is no longer read in place leaves the resident memory. One caller at a time.
  void set_residency(Residency residency) const;
  /// Lets go of the pages of its own file; of those of the indexes, too, if asked.
  void forget_pages(bool indexes) const;
  /// Bytes of its files, and of those what kCodes reads in place.
  uint64_t files_bytes() const;
  uint64_t codes_bytes() const;
  Result<Bytes> id_bytes(RowId row) const override;
  void prefetch_id(RowId row) const override;
  Result<Bytes> payload(RowId row) const override;
  Result<std::optional<RowId>> find(const PointId& id, RowId visible) const override;
  bool failed() const override { return file_->failed(); }
  bool index_failed() const override;
  uint64_t disk_bytes() const override { return file_->file_bytes(); }
  uint64_t memory_bytes() const override;

  std::shared_ptr<const VectorIndex> vector_index(Metric metric) const override;
  std::shared_ptr<const VectorIndex> row_codes(Metric metric) const override;
  std::shared_ptr<const ListReader> list_reader(Metric metric) const override;
  std::shared_ptr<const FieldIndex> field_index() const override;
  std::shared_ptr<const MeasuredRecall> measured_recall(Metric metric,
                                                        bool filtered) const override;
  /// How often it was measured; 0: never.
  uint64_t times_measured(Metric metric, bool filtered) const;
  /// One caller at a time.
  void set_measured(Metric metric, bool filtered, MeasuredRecall recall) const;
  std::shared_ptr<const SegmentIndexes> indexes() const { return indexes_.get(); }
  /// Adds codes, which serve until there is an index. One caller at a time.
  void attach_codes(Metric metric, std::shared_ptr<const VectorIndex> codes) const;
  /// Adds, or with an empty entry removes, the index for a metric. One caller at a time.
  void attach(Metric metric, SegmentIndexes::Entry entry) const;
  /// The same for the index of the payloads.
  void attach(SegmentIndexes::Fields fields) const;

  RowId rows_count() const { return rows_count_; }
  /// Whether any row has a payload.
  bool has_payloads() const { return payloads_.size() > 0; }
  uint32_t dimension() const { return dimension_; }
  /// The first row whose id is not less than `id`; rows_count() when there is none.
  Result<RowId> lower_bound(const PointId& id) const;
  /// Rows of other segments that the writes in this one made dead.
  Result<std::vector<Kill>> kills() const;

 private:
  SealedSegment() = default;
  Status check_sections() const;
  std::shared_ptr<SegmentIndexes> copy_of_indexes() const;
  Result<uint64_t> number_at(RowId row) const;

  std::shared_ptr<SegmentFile> file_;
  uint32_t dimension_ = 0;
  IdType id_type_ = IdType::kU64;
  RowId rows_count_ = 0;
  uint64_t kills_count_ = 0;
  Section ids_;         // uint64_t[rows], u64 ids
  Section id_offsets_;  // uint64_t[rows + 1], string ids
  Section id_texts_;
  Section values_;           // [rows x dimension] in the form below
  Section norms_;            // float[rows]
  Section payload_offsets_;  // uint64_t[rows + 1]; absent when no row has a payload
  Section payloads_;
  Section kills_;
  RowFormat format_ = kRowFormats.back();
  const std::byte* ids_start_ = nullptr;  // of ids_ or id_offsets_, to prefetch only
  PointId id_min_, id_max_;               // of rows_count_ > 0
  mutable Published<SegmentIndexes> indexes_;
  mutable std::atomic<bool> lost_index_{false};  // one that failed was replaced or removed
  mutable std::atomic<Residency> residency_{Residency::kAll};
  /// By metric, without and with a filter. The count is looked at first: as a rule there is none.
  struct Measured {
    std::atomic<uint64_t> times{0};
    Published<MeasuredRecall> recall;
  };
  mutable std::array<std::array<Measured, 2>, kMetricsCount> measured_;
};

/// A row to be sealed.
struct SealRow {
  const Segment* segment;
  RowId row;
};

/// Live rows of `inputs` in id order. REQUIRES: no id lives twice.
/// Errors: corruption of an input.
Result<std::vector<SealRow>> rows_in_id_order(std::span<const SegmentView> inputs, IdType id_type);

/// Where the point in `row` of `from` lies in `to`, which was made of it.
/// Errors: corruption; internal, when it is not there.
Result<RowId> moved_row(const Segment& from, RowId row, const SealedSegment& to, IdType id_type);

/// Streams `rows` and `kills` into a new segment file. Memory: one buffer. Cost: one pass over the
/// input bytes per section.
Result<std::shared_ptr<SegmentFile>> write_sealed_segment(SegmentWriter& writer,
                                                          std::span<const SealRow> rows,
                                                          std::span<const Kill> kills,
                                                          uint32_t dimension, IdType id_type);

}  // namespace aionbd

#include "engine/index_build.h"

#include <algorithm>
#include <functional>

#include "engine/index_file.h"
#include "engine/pinning.h"

namespace aionbd {

namespace {

/// The first rows of a segment. Thread safety: safe.
class SegmentRows final : public RowSource {
 public:
  explicit SegmentRows(const SealedSegment& segment)
      : SegmentRows(segment, segment.rows_count(), segment.dimension()) {}
  SegmentRows(const Segment& segment, RowId rows, uint32_t dimension)
      : segment_(segment), rows_(rows), dimension_(dimension) {}

  uint32_t rows_count() const override { return rows_; }
  uint32_t dimension() const override { return dimension_; }
  Status read(uint32_t first, size_t n, float* out) const override {
    if (segment_.residency() != Residency::kAll) return segment_.copy_rows(first, n, out, nullptr);
    while (n > 0) {
      ASSIGN_OR_RETURN(const RowBlock block, segment_.rows(first, n));
      block.values.copy(block.count * dimension_, out);
      out += block.count * dimension_;
      first += static_cast<uint32_t>(block.count);
      n -= block.count;
    }
    return {};
  }

 private:
  const Segment& segment_;
  const RowId rows_;
  const uint32_t dimension_;
};

/// The lists of an index, copied from its file. Thread safety: safe.
class FileLists final : public ListReader {
 public:
  FileLists(std::shared_ptr<SegmentFile> file, Section members, Section high, size_t stride)
      : file_(std::move(file)), members_(members), high_(high), stride_(stride) {}

  Status read(size_t first, size_t n, uint32_t* members, uint8_t* high) const override {
    RETURN_IF_ERROR(
        members_.read(first * sizeof(uint32_t), std::as_writable_bytes(std::span(members, n))));
    return high_.read(first * stride_, std::as_writable_bytes(std::span(high, n * stride_)));
  }

 private:
  const std::shared_ptr<SegmentFile> file_;
  const Section members_;
  const Section high_;
  const size_t stride_;
};

/// An opened index, to attach to its segment.
Result<SegmentIndexes::Entry> entry_of(std::shared_ptr<SegmentFile> file,
                                       std::shared_ptr<const VectorIndex> index) {
  ASSIGN_OR_RETURN(const Section members, file->section(index_tag(IndexPart::kIvfMembers)));
  ASSIGN_OR_RETURN(const Section high, file->section(index_tag(IndexPart::kIvfHigh)));
  auto lists = std::make_shared<const FileLists>(file, members, high, index->code_stride());
  return SegmentIndexes::Entry{std::move(file), std::move(index), std::move(lists)};
}

/// Writes an index file of about `bytes`. On a full disk it leaves nothing behind: what the reserve
/// gave is for deletes, and one that met this file waits for its end.
Result<std::shared_ptr<SegmentFile>> write_index_file(
    EngineContext& context, uint64_t bytes, const std::function<Status(SegmentWriter&)>& fill) {
  MutexLock lock(context.index_file_mutex);
  RETURN_IF_ERROR(context.storage->admit_growth());
  ASSIGN_OR_RETURN(const std::unique_ptr<SegmentWriter> writer,
                   context.storage->new_segment(context.new_segment_id(), bytes));
  RETURN_IF_ERROR(fill(*writer));
  // Its space was taken before: if the reserve is whole now, none of it is the reserve's.
  RETURN_IF_ERROR(context.storage->admit_growth());
  return writer->finish();
}

/// The lists that `inputs` have, those with the most rows first, as many as can be of use.
ListCentres list_centres_of(std::span<const SegmentView> inputs, Metric metric, uint64_t rows) {
  std::vector<SegmentView> order(inputs.begin(), inputs.end());
  std::stable_sort(order.begin(), order.end(),
                   [](const SegmentView& a, const SegmentView& b) { return a.live() > b.live(); });
  ListCentres out;
  for (const SegmentView& input : order) {
    const std::shared_ptr<const VectorIndex> index = input.segment->vector_index(metric);
    if (index == nullptr || out.rows.size() + index->lists() > list_centres_max(rows)) continue;
    index->add_list_centres(&out);
    if (input.segment->index_failed()) return {};
  }
  return out;
}

Result<std::shared_ptr<SegmentFile>> write_vector_index(EngineContext& context,
                                                        const SealedSegment& segment, Metric metric,
                                                        std::span<const SegmentView> inputs,
                                                        const SiblingIndexes& siblings,
                                                        const Cancelled& cancelled) {
  const SegmentRows rows(segment);
  // The seed is the segment's, so that the same data in the same segment gets the same index.
  ASSIGN_OR_RETURN(const BuiltIndex built,
                   build_index(rows, metric, segment.id(), context.pool.get(), cancelled,
                               build_memory_max(context.budget.limit()),
                               list_centres_of(inputs, metric, segment.rows_count()), siblings));
  if (segment.failed()) return corruption("a segment to index cannot be read");
  uint64_t bytes = 0;
  RETURN_IF_ERROR(built.write([&bytes](IndexPart, Bytes part) -> Status {
    bytes += part.size();
    return {};
  }));
  return write_index_file(context, bytes, [&built](SegmentWriter& writer) {
    return built.write([&writer](IndexPart part, Bytes section) -> Status {
      RETURN_IF_ERROR(writer.begin_section(index_tag(part)));
      return writer.append(section);
    });
  });
}

}  // namespace

Status open_stored_index(Storage& storage, const CataloguedIndex& entry,
                         const SealedSegment& segment, const SiblingIndexes& siblings) {
  ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file, storage.open_segment(entry.file));
  if (entry.kind == IndexKind::kFields) {
    ASSIGN_OR_RETURN(FieldIndex index, open_field_index(*file, segment.rows_count()));
    segment.attach({std::move(file), std::move(index)});
    return {};
  }
  // So the checksums at least touch no page.
  if (segment.residency() != Residency::kAll) RETURN_IF_ERROR(file->verify());
  ASSIGN_OR_RETURN(std::shared_ptr<const VectorIndex> index,
                   open_vector_index(*file, segment.rows_count(), segment.dimension(), siblings));
  if (index->metric() != entry.metric) return corruption("vector index: made for another metric");
  // Checking touched every page; which of them are hot, searches decide.
  file->forget_pages();
  ASSIGN_OR_RETURN(SegmentIndexes::Entry opened, entry_of(std::move(file), std::move(index)));
  segment.attach(entry.metric, std::move(opened));
  return {};
}

Result<SegmentIndexes::Entry> build_vector_index(EngineContext& context,
                                                 const SealedSegment& segment, Metric metric,
                                                 std::span<const SegmentView> inputs,
                                                 const SiblingIndexes& siblings,
                                                 const Cancelled& cancelled) {
  ASSIGN_OR_RETURN(std::shared_ptr<SegmentFile> file,
                   write_vector_index(context, segment, metric, inputs, siblings, cancelled));
  const bool limited = context.budget.limit() != 0;
  if (limited) RETURN_IF_ERROR(file->verify());
  ASSIGN_OR_RETURN(std::shared_ptr<const VectorIndex> index,
                   open_vector_index(*file, segment.rows_count(), segment.dimension(), siblings));
  if (limited) file->forget_pages();
  return entry_of(std::move(file), std::move(index));
}

SiblingIndexes siblings_of(const StoredCollection& collection, Metric metric) {
  SiblingIndexes out;
  for (const SegmentView& view : collection.sealed_segments()) {
    std::shared_ptr<const VectorIndex> index = view.segment->vector_index(metric);
    if (index != nullptr) out.push_back(std::move(index));
  }
  return out;
}

namespace {

/// Codes in the terms of the largest index of a collection. Null: there is none, or it does not
/// suit the rows.
Result<std::shared_ptr<const VectorIndex>> encode_rows(const StoredCollection& collection,
                                                       const RowSource& rows, Metric metric) {
  const SiblingIndexes siblings = siblings_of(collection, metric);
  const auto largest = std::max_element(
      siblings.begin(), siblings.end(),
      [](const auto& a, const auto& b) { return a->rows_count() < b->rows_count(); });
  if (largest == siblings.end()) return std::shared_ptr<const VectorIndex>();
  return VectorIndex::encode(rows, **largest);
}

}  // namespace

Status add_row_codes(const StoredCollection& collection, const SealedSegment& segment,
                     Metric metric) {
  ASSIGN_OR_RETURN(std::shared_ptr<const VectorIndex> codes,
                   encode_rows(collection, SegmentRows(segment), metric));
  if (codes != nullptr) segment.attach_codes(metric, std::move(codes));
  return {};
}

Status add_open_codes(const StoredCollection& collection, Metric metric) {
  ASSIGN_OR_RETURN(const std::shared_ptr<const View> view, collection.current_view());
  if (view->segments.empty() || view->segments.back().segment->sealed()) return {};
  const SegmentView& last = view->segments.back();
  const auto& segment = static_cast<const OpenSegment&>(*last.segment);
  ASSIGN_OR_RETURN(
      std::shared_ptr<const VectorIndex> codes,
      encode_rows(collection, SegmentRows(segment, last.rows, segment.dimension()), metric));
  if (codes == nullptr) {
    segment.refuse_codes(metric);
  } else {
    segment.attach_codes(metric, std::move(codes));
  }
  return {};
}

Result<SegmentIndexes::Fields> build_field_index(EngineContext& context,
                                                 const SealedSegment& segment,
                                                 const Cancelled& cancelled) {
  constexpr RowId kRowsPerLook = 4096;  // rows between two looks at whether to stop
  FieldIndexBuilder builder;
  for (RowId row = 0; row < segment.rows_count(); ++row) {
    if (row % kRowsPerLook == 0 && cancelled()) return unavailable("the build was given up");
    ASSIGN_OR_RETURN(const Bytes payload, segment.payload(row));
    builder.add(payload);
  }
  if (segment.failed()) return corruption("a segment to index cannot be read");
  const std::string bytes = std::move(builder).finish();
  ASSIGN_OR_RETURN(
      std::shared_ptr<SegmentFile> file,
      write_index_file(context, bytes.size(), [&bytes](SegmentWriter& writer) -> Status {
        RETURN_IF_ERROR(writer.begin_section(kTagFields));
        return writer.append(as_bytes_of(bytes));
      }));
  ASSIGN_OR_RETURN(FieldIndex index, open_field_index(*file, segment.rows_count()));
  return SegmentIndexes::Fields{std::move(file), std::move(index)};
}

}  // namespace aionbd

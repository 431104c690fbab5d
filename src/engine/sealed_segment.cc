#include "engine/sealed_segment.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "engine/segment_sections.h"
#include "payload/payload.h"

namespace aionbd {

namespace {

template <typename T>
Result<T> load(const Section& section, uint64_t index) {
  ASSIGN_OR_RETURN(const Bytes bytes, section.bytes(index * sizeof(T), sizeof(T)));
  T out;
  std::memcpy(&out, bytes.data(), sizeof(T));
  return out;
}

bool has_failed(const std::shared_ptr<SegmentFile>& file) {
  return file != nullptr && file->failed();
}

/// The text between two offsets of an offsets section.
Result<Bytes> load_text(const Section& offsets, const Section& texts, RowId row) {
  ASSIGN_OR_RETURN(const Bytes pair, offsets.bytes(uint64_t{row} * 8, 16));
  uint64_t range[2];
  std::memcpy(range, pair.data(), sizeof(range));
  if (range[0] > range[1] || range[1] > texts.size()) {
    return corruption("segment offsets are not ascending");
  }
  return texts.bytes(range[0], range[1] - range[0]);
}

}  // namespace

Result<std::shared_ptr<const SealedSegment>> SealedSegment::open(std::shared_ptr<SegmentFile> file,
                                                                 uint32_t dimension,
                                                                 IdType id_type) {
  std::shared_ptr<SealedSegment> out(new SealedSegment());
  out->file_ = std::move(file);
  out->dimension_ = dimension;
  out->id_type_ = id_type;
  const SegmentFile& f = *out->file_;
  ASSIGN_OR_RETURN(const Section meta, f.section(kTagMeta));
  ASSIGN_OR_RETURN(const Bytes meta_bytes, meta.all());
  Decoder decoder(meta_bytes);
  const auto rows = decoder.get<uint64_t>();
  out->kills_count_ = decoder.get<uint64_t>();
  const auto stored_dimension = decoder.get<uint32_t>();
  const auto stored_id_type = decoder.get<uint32_t>();
  if (!decoder.finished() || rows > kSegmentRowsMax || stored_dimension != dimension ||
      stored_id_type != static_cast<uint32_t>(id_type)) {
    return corruption("segment " + std::to_string(f.id()) + ": header does not fit its collection");
  }
  out->rows_count_ = static_cast<RowId>(rows);
  if (rows > 0) {
    out->format_ = row_format_in(f);
    ASSIGN_OR_RETURN(out->values_, f.section(out->format_.tag));
    ASSIGN_OR_RETURN(out->norms_, f.section(kTagNorms));
    if (id_type == IdType::kU64) {
      ASSIGN_OR_RETURN(out->ids_, f.section(kTagIds));
    } else {
      ASSIGN_OR_RETURN(out->id_offsets_, f.section(kTagIdOffsets));
      ASSIGN_OR_RETURN(out->id_texts_, f.section(kTagIdTexts));
    }
    if (f.has_section(kTagPayloads)) {
      ASSIGN_OR_RETURN(out->payload_offsets_, f.section(kTagPayloadOffsets));
      ASSIGN_OR_RETURN(out->payloads_, f.section(kTagPayloads));
    }
  }
  if (out->kills_count_ > 0) {
    ASSIGN_OR_RETURN(out->kills_, f.section(kTagKills));
  }
  RETURN_IF_ERROR(out->check_sections());
  if (rows > 0) {
    ASSIGN_OR_RETURN(const Bytes first, out->id_bytes(0));
    ASSIGN_OR_RETURN(const Bytes last, out->id_bytes(out->rows_count_ - 1));
    out->id_min_ = point_id_of(id_type, first);
    out->id_max_ = point_id_of(id_type, last);
    ASSIGN_OR_RETURN(const Bytes start,
                     (id_type == IdType::kU64 ? out->ids_ : out->id_offsets_).bytes(0, 8));
    out->ids_start_ = start.data();
  }
  return std::shared_ptr<const SealedSegment>(std::move(out));
}

Status SealedSegment::check_sections() const {
  const uint64_t n = rows_count_;
  const bool ids_fit =
      n == 0 || (id_type_ == IdType::kU64 ? ids_.size() == n * 8 : id_offsets_.size() == n * 8 + 8);
  const bool payloads_fit = payloads_.size() == 0 || payload_offsets_.size() == n * 8 + 8;
  // The kill count is hostile until compared without overflow.
  const bool kills_fit =
      kills_.size() / kKillBytes == kills_count_ && kills_.size() % kKillBytes == 0;
  if (!ids_fit || !payloads_fit || !kills_fit ||
      values_.size() != n * dimension_ * format_.value_bytes ||
      norms_.size() != n * sizeof(float)) {
    return corruption("segment " + std::to_string(file_->id()) +
                      ": section sizes do not fit the row count");
  }
  return {};
}

Result<RowBlock> SealedSegment::rows(RowId first, size_t limit) const {
  const uint64_t count = std::min<uint64_t>(limit, rows_count_ - first);
  const uint64_t row_bytes = uint64_t{dimension_} * format_.value_bytes;
  ASSIGN_OR_RETURN(const Bytes values, values_.bytes(first * row_bytes, count * row_bytes));
  ASSIGN_OR_RETURN(const Bytes norms,
                   norms_.bytes(uint64_t{first} * sizeof(float), count * sizeof(float)));
  // Sections begin at multiples of 64 bytes of a page-aligned map, so the casts are aligned.
  RowBlock out;
  out.values = values_in(format_, values.data());
  out.norms_squared = reinterpret_cast<const float*>(norms.data());
  out.count = count;
  return out;
}

Status SealedSegment::copy_rows(RowId first, size_t n, float* values, float* norms) const {
  const uint64_t row_bytes = uint64_t{dimension_} * format_.value_bytes;
  // Bytes are read behind the place where the floats end up, which then never overtake them.
  const std::span<std::byte> room = std::as_writable_bytes(std::span(values, n * dimension_));
  const std::span<std::byte> read = room.last(n * row_bytes);
  RETURN_IF_ERROR(values_.read(first * row_bytes, read));
  if (format_.value_bytes == 1) values_in(format_, read.data()).copy(n * dimension_, values);
  if (norms == nullptr) return {};
  return norms_.read(uint64_t{first} * sizeof(float), std::as_writable_bytes(std::span(norms, n)));
}

void SealedSegment::set_residency(Residency residency) const {
  const Residency before = residency_.exchange(residency, std::memory_order_relaxed);
  if (residency > before) forget_pages(true);
}

void SealedSegment::forget_pages(bool indexes) const {
  file_->forget_pages();
  const std::shared_ptr<const SegmentIndexes> held = indexes_.get();
  if (!indexes || held == nullptr) return;
  for (const SegmentIndexes::Entry& entry : held->by_metric) {
    if (entry.file != nullptr) entry.file->forget_pages();
  }
  if (held->fields.file != nullptr) held->fields.file->forget_pages();
}

uint64_t SealedSegment::files_bytes() const {
  uint64_t bytes = file_->file_bytes();
  const std::shared_ptr<const SegmentIndexes> held = indexes_.get();
  if (held == nullptr) return bytes;
  for (const SegmentIndexes::Entry& entry : held->by_metric) {
    if (entry.file != nullptr) bytes += entry.file->file_bytes();
  }
  return bytes + (held->fields.file == nullptr ? 0 : held->fields.file->file_bytes());
}

uint64_t SealedSegment::codes_bytes() const {
  uint64_t bytes = 0;
  const std::shared_ptr<const SegmentIndexes> held = indexes_.get();
  if (held == nullptr) return bytes;
  for (const SegmentIndexes::Entry& entry : held->by_metric) {
    if (entry.index != nullptr) bytes += entry.index->hot_bytes();
  }
  return bytes;
}

bool SealedSegment::index_failed() const {
  if (lost_index_.load(std::memory_order_acquire)) return true;
  const std::shared_ptr<const SegmentIndexes> held = indexes_.get();
  if (held == nullptr) return false;
  return has_failed(held->fields.file) ||
         std::any_of(held->by_metric.begin(), held->by_metric.end(),
                     [](const SegmentIndexes::Entry& entry) { return has_failed(entry.file); });
}

std::shared_ptr<const ListReader> SealedSegment::list_reader(Metric metric) const {
  const std::shared_ptr<const SegmentIndexes> indexes = indexes_.get();
  if (indexes == nullptr) return nullptr;
  const SegmentIndexes::Entry& entry = indexes->by_metric[static_cast<size_t>(metric)];
  return has_failed(entry.file) ? nullptr : entry.lists;
}

std::shared_ptr<const VectorIndex> SealedSegment::vector_index(Metric metric) const {
  const std::shared_ptr<const SegmentIndexes> indexes = indexes_.get();
  if (indexes == nullptr) return nullptr;
  const SegmentIndexes::Entry& entry = indexes->by_metric[static_cast<size_t>(metric)];
  if (has_failed(entry.file)) return nullptr;
  // The answer keeps the file alive, too.
  return {indexes, entry.index.get()};
}

std::shared_ptr<const VectorIndex> SealedSegment::row_codes(Metric metric) const {
  const std::shared_ptr<const SegmentIndexes> indexes = indexes_.get();
  return indexes == nullptr ? nullptr : indexes->codes[static_cast<size_t>(metric)];
}

uint64_t SealedSegment::memory_bytes() const {
  uint64_t bytes = 0;
  if (const std::shared_ptr<const SegmentIndexes> indexes = indexes_.get()) {
    for (const auto& codes : indexes->codes) bytes += codes == nullptr ? 0 : codes->memory_bytes();
  }
  return bytes;
}

std::shared_ptr<const FieldIndex> SealedSegment::field_index() const {
  const std::shared_ptr<const SegmentIndexes> indexes = indexes_.get();
  if (indexes == nullptr || !indexes->fields.index) return nullptr;
  if (has_failed(indexes->fields.file)) return nullptr;
  return {indexes, &*indexes->fields.index};
}

std::shared_ptr<const MeasuredRecall> SealedSegment::measured_recall(Metric metric,
                                                                     bool filtered) const {
  const Measured& measured = measured_[static_cast<size_t>(metric)][filtered ? 1 : 0];
  if (measured.times.load(std::memory_order_acquire) == 0) return nullptr;
  return measured.recall.get();
}

uint64_t SealedSegment::times_measured(Metric metric, bool filtered) const {
  return measured_[static_cast<size_t>(metric)][filtered ? 1 : 0].times.load();
}

void SealedSegment::set_measured(Metric metric, bool filtered, MeasuredRecall recall) const {
  Measured& measured = measured_[static_cast<size_t>(metric)][filtered ? 1 : 0];
  measured.recall.set(std::make_shared<const MeasuredRecall>(std::move(recall)));
  measured.times.fetch_add(1);
}

std::shared_ptr<SegmentIndexes> SealedSegment::copy_of_indexes() const {
  const std::shared_ptr<const SegmentIndexes> before = indexes_.get();
  return before == nullptr ? std::make_shared<SegmentIndexes>()
                           : std::make_shared<SegmentIndexes>(*before);
}

void SealedSegment::attach(SegmentIndexes::Fields fields) const {
  // Before it can be forgotten.
  if (index_failed()) lost_index_.store(true, std::memory_order_release);
  const std::shared_ptr<SegmentIndexes> after = copy_of_indexes();
  after->fields = std::move(fields);
  indexes_.set(after);
}

void SealedSegment::attach_codes(Metric metric, std::shared_ptr<const VectorIndex> codes) const {
  const std::shared_ptr<SegmentIndexes> after = copy_of_indexes();
  after->codes[static_cast<size_t>(metric)] = std::move(codes);
  indexes_.set(after);
}

void SealedSegment::attach(Metric metric, SegmentIndexes::Entry entry) const {
  if (index_failed()) lost_index_.store(true, std::memory_order_release);
  const std::shared_ptr<SegmentIndexes> after = copy_of_indexes();
  after->codes[static_cast<size_t>(metric)] = nullptr;
  after->by_metric[static_cast<size_t>(metric)] = std::move(entry);
  indexes_.set(after);
}

Result<Bytes> SealedSegment::id_bytes(RowId row) const {
  if (id_type_ == IdType::kU64) return ids_.bytes(uint64_t{row} * 8, 8);
  return load_text(id_offsets_, id_texts_, row);
}

void SealedSegment::prefetch_id(RowId row) const {
  __builtin_prefetch(ids_start_ + uint64_t{row} * 8);
}

Result<Bytes> SealedSegment::payload(RowId row) const {
  if (payloads_.size() == 0) return Bytes();
  ASSIGN_OR_RETURN(const Bytes payload, load_text(payload_offsets_, payloads_, row));
  // A checksum says that the bytes are those written, not that a payload was: filters and decoders
  // trust what they walk.
  RETURN_IF_ERROR(check_payload(payload));
  return payload;
}

Result<uint64_t> SealedSegment::number_at(RowId row) const {
  return load<uint64_t>(ids_, row);
}

Result<RowId> SealedSegment::lower_bound(const PointId& id) const {
  RowId low = 0;
  RowId high = rows_count_;
  while (low < high) {
    const RowId middle = low + (high - low) / 2;
    bool less = false;
    if (id_type_ == IdType::kU64) {
      ASSIGN_OR_RETURN(const uint64_t number, number_at(middle));
      less = number < id.number();
    } else {
      ASSIGN_OR_RETURN(const Bytes text, id_bytes(middle));
      less = as_text(text) < id.text();
    }
    if (less) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

Result<std::optional<RowId>> SealedSegment::find(const PointId& id, RowId visible) const {
  if (rows_count_ == 0 || id < id_min_ || id > id_max_) return std::optional<RowId>();
  ASSIGN_OR_RETURN(const RowId row, lower_bound(id));
  if (row >= visible) return std::optional<RowId>();
  ASSIGN_OR_RETURN(const Bytes found, id_bytes(row));
  return point_id_of(id_type_, found) == id ? std::optional<RowId>(row) : std::optional<RowId>();
}

Result<std::vector<Kill>> SealedSegment::kills() const {
  std::vector<Kill> out;
  if (kills_count_ == 0) return out;
  ASSIGN_OR_RETURN(const Bytes bytes, kills_.all());
  out.reserve(kills_count_);
  Decoder decoder(bytes);
  for (uint64_t i = 0; i < kills_count_; ++i) {
    Kill kill;
    kill.segment = decoder.get<uint64_t>();
    kill.row = decoder.get<uint32_t>();
    if (decoder.get<uint32_t>() != 0) decoder.fail();
    out.push_back(kill);
  }
  if (!decoder.finished()) {
    return corruption("segment " + std::to_string(file_->id()) + ": list of kills is malformed");
  }
  return out;
}

Result<std::vector<SealRow>> rows_in_id_order(std::span<const SegmentView> inputs, IdType id_type) {
  struct Entry {
    uint64_t number;
    std::string_view text;  // in place: inputs outlive the sort
    SealRow row;
  };
  std::vector<Entry> entries;
  for (const SegmentView& input : inputs) {
    for (RowId row = 0; row < input.rows; ++row) {
      if (input.dead->contains(row)) continue;
      ASSIGN_OR_RETURN(const Bytes id, input.segment->id_bytes(row));
      Entry entry{0, {}, {input.segment.get(), row}};
      if (id_type == IdType::kU64) {
        std::memcpy(&entry.number, id.data(), sizeof(entry.number));
      } else {
        entry.text = as_text(id);
      }
      entries.push_back(entry);
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.number != b.number ? a.number < b.number : a.text < b.text;
  });
  std::vector<SealRow> out;
  out.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0 && entries[i].number == entries[i - 1].number &&
        entries[i].text == entries[i - 1].text) {
      return corruption("a point id is live in two segments");
    }
    out.push_back(entries[i].row);
  }
  return out;
}

namespace {

template <typename T>
Status append_value(SegmentWriter& writer, const T& value) {
  return writer.append(std::as_bytes(std::span<const T, 1>(&value, 1)));
}

/// Two sections: offsets of the texts, then the texts. `text_of` gives a row's text.
template <typename TextOf>
Status write_texts(SegmentWriter& writer, SectionTag offsets_tag, SectionTag texts_tag,
                   std::span<const SealRow> rows, TextOf text_of) {
  RETURN_IF_ERROR(writer.begin_section(offsets_tag));
  uint64_t offset = 0;
  RETURN_IF_ERROR(append_value(writer, offset));
  for (const SealRow& row : rows) {
    ASSIGN_OR_RETURN(const Bytes text, text_of(row));
    offset += text.size();
    RETURN_IF_ERROR(append_value(writer, offset));
  }
  RETURN_IF_ERROR(writer.begin_section(texts_tag));
  for (const SealRow& row : rows) {
    ASSIGN_OR_RETURN(const Bytes text, text_of(row));
    RETURN_IF_ERROR(writer.append(text));
  }
  return {};
}

Status write_ids(SegmentWriter& writer, std::span<const SealRow> rows, IdType id_type) {
  const auto id_of = [](const SealRow& row) { return row.segment->id_bytes(row.row); };
  if (id_type == IdType::kString) {
    return write_texts(writer, kTagIdOffsets, kTagIdTexts, rows, id_of);
  }
  RETURN_IF_ERROR(writer.begin_section(kTagIds));
  for (const SealRow& row : rows) {
    ASSIGN_OR_RETURN(const Bytes id, id_of(row));
    RETURN_IF_ERROR(writer.append(id));
  }
  return {};
}

/// Calls visit(block) for runs of rows that lie together: rows that came in id order are written
/// from where they lie, without a copy, where they may be resident.
template <typename Visit>
Status for_each_run(std::span<const SealRow> rows, uint32_t dimension, Visit visit) {
  constexpr size_t kCopiedRows = 1024;
  struct {
    std::vector<float> values, norms;
  } copy;
  for (size_t i = 0; i < rows.size();) {
    size_t run = 1;
    while (i + run < rows.size() && rows[i + run].segment == rows[i].segment &&
           rows[i + run].row == rows[i].row + run) {
      ++run;
    }
    if (rows[i].segment->residency() == Residency::kAll) {
      ASSIGN_OR_RETURN(const RowBlock block, rows[i].segment->rows(rows[i].row, run));
      RETURN_IF_ERROR(visit(block));
      i += block.count;
      continue;
    }
    run = std::min(run, kCopiedRows);
    copy.values.resize(run * dimension);
    copy.norms.resize(run);
    RETURN_IF_ERROR(
        rows[i].segment->copy_rows(rows[i].row, run, copy.values.data(), copy.norms.data()));
    RETURN_IF_ERROR(visit(RowBlock{copy.values.data(), copy.norms.data(), run}));
    i += run;
  }
  return {};
}

/// Calls visit(values) for the values of a block as floats, a piece at a time.
template <typename Visit>
Status for_each_float(const RowBlock& block, uint32_t dimension, Visit visit) {
  constexpr size_t kPiece = 4096;
  const size_t count = block.count * dimension;
  float copy[kPiece];
  for (size_t at = 0; at < count; at += kPiece) {
    const size_t n = std::min(kPiece, count - at);
    const RowValues values = block.values.from(at);
    if (values.bytes != nullptr) values.copy(n, copy);
    RETURN_IF_ERROR(visit(std::span(values.bytes != nullptr ? copy : values.floats, n)));
  }
  return {};
}

/// One pass over integers; values that are none settle it at once.
Result<RowFormat> narrowest_format(std::span<const SealRow> rows, uint32_t dimension) {
  RowFormatChoice choice;
  const Status looked = for_each_run(rows, dimension, [&](const RowBlock& block) {
    return for_each_float(block, dimension, [&](std::span<const float> values) -> Status {
      choice.look_at(values);
      if (choice.settled()) return unavailable("settled");
      return {};
    });
  });
  if (!looked.ok() && !choice.settled()) return looked;
  return choice.choice();
}

Status write_values(SegmentWriter& writer, std::span<const SealRow> rows, uint32_t dimension) {
  ASSIGN_OR_RETURN(const RowFormat format, narrowest_format(rows, dimension));
  RETURN_IF_ERROR(writer.begin_section(format.tag));
  std::vector<uint8_t> narrow;
  RETURN_IF_ERROR(for_each_run(rows, dimension, [&](const RowBlock& block) {
    return for_each_float(block, dimension, [&](std::span<const float> values) {
      if (format.value_bytes != 1) return writer.append(std::as_bytes(values));
      narrow.resize(values.size());
      narrow_values(format, values, narrow.data());
      return writer.append(std::as_bytes(std::span(narrow)));
    });
  }));
  RETURN_IF_ERROR(writer.begin_section(kTagNorms));
  return for_each_run(rows, dimension, [&](const RowBlock& block) {
    return writer.append(std::as_bytes(std::span(block.norms_squared, block.count)));
  });
}

}  // namespace

Result<RowId> moved_row(const Segment& from, RowId row, const SealedSegment& to, IdType id_type) {
  ASSIGN_OR_RETURN(const Bytes id, from.id_bytes(row));
  ASSIGN_OR_RETURN(const std::optional<RowId> moved,
                   to.find(point_id_of(id_type, id), to.rows_count()));
  if (!moved) return internal_error("a live row is missing from the segment it was merged into");
  return *moved;
}

Result<std::shared_ptr<SegmentFile>> write_sealed_segment(SegmentWriter& writer,
                                                          std::span<const SealRow> rows,
                                                          std::span<const Kill> kills,
                                                          uint32_t dimension, IdType id_type) {
  RETURN_IF_ERROR(writer.begin_section(kTagMeta));
  RETURN_IF_ERROR(append_value(writer, static_cast<uint64_t>(rows.size())));
  RETURN_IF_ERROR(append_value(writer, static_cast<uint64_t>(kills.size())));
  RETURN_IF_ERROR(append_value(writer, dimension));
  RETURN_IF_ERROR(append_value(writer, static_cast<uint32_t>(id_type)));
  if (!rows.empty()) {
    RETURN_IF_ERROR(write_ids(writer, rows, id_type));
    RETURN_IF_ERROR(write_values(writer, rows, dimension));
    const auto payload_of = [](const SealRow& row) { return row.segment->payload(row.row); };
    bool any_payload = false;
    for (size_t i = 0; i < rows.size() && !any_payload; ++i) {
      ASSIGN_OR_RETURN(const Bytes payload, payload_of(rows[i]));
      any_payload = !payload.empty();
    }
    if (any_payload) {
      RETURN_IF_ERROR(write_texts(writer, kTagPayloadOffsets, kTagPayloads, rows, payload_of));
    }
  }
  if (!kills.empty()) {
    RETURN_IF_ERROR(writer.begin_section(kTagKills));
    for (const Kill& kill : kills) {
      RETURN_IF_ERROR(append_value(writer, kill.segment));
      RETURN_IF_ERROR(append_value(writer, kill.row));
      RETURN_IF_ERROR(append_value(writer, uint32_t{0}));
    }
  }
  return writer.finish();
}

}  // namespace aionbd

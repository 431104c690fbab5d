// See segment_file.h and, for the layout, docs/format.md.
//
// The writer checksums block by block. Its buffer always begins at a block boundary of the file, so
// a large append is gathered: the buffer is filled up to the next boundary, whole blocks are
// checksummed and written straight from the caller's memory, and only the rest is copied.
#include "storage/segment_file.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/checksum.h"
#include "base/memory_guard.h"
#include "storage/format.h"

namespace aionbd {
namespace {

/// Written at once: large enough that system calls cost nothing, small beside any memory budget.
constexpr size_t kWriteBytes = size_t{1} << 20;
static_assert(kWriteBytes % kBlockBytes == 0);

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}
constexpr uint64_t blocks_of(uint64_t data_bytes) {
  return (data_bytes + kBlockBytes - 1) / kBlockBytes;
}

// ---- Reading -----------------------------------------------------------------------------------

/// A verified opening of an image. Thread safety: safe; the verified bits are only ever set.
class SegmentImage final : public SegmentFile {
 public:
  SegmentImage(std::unique_ptr<MappedFile> image, std::string name, uint64_t store_id, SegmentId id)
      : image_(std::move(image)),
        bytes_(image_->bytes()),
        name_(std::move(name)),
        store_id_(store_id),
        id_(id) {}

  /// Verifies everything but the blocks. Call once, before any other use.
  Status open(const std::optional<SegmentStamp>& expected, SegmentOpening opening) {
    if (bytes_.size() < sizeof(SegmentHeader) + sizeof(SegmentTrailer)) {
      return damaged("file is too short", bytes_.size());
    }
    const bool salvage = opening == SegmentOpening::kSalvage;
    if (!salvage) RETURN_IF_ERROR(check_header());
    const Status trailer = check_trailer(expected);
    if (!trailer.ok() && !(salvage && guess_trailer())) return trailer;
    RETURN_IF_ERROR(read_tables(opening));
    const uint64_t words = (blocks_of(trailer_.data_bytes) + 63) / 64;
    verified_ = std::vector<std::atomic<uint64_t>>(words);
    return Status();
  }

  SegmentId id() const override { return id_; }
  uint64_t file_bytes() const override { return bytes_.size(); }
  uint64_t trailer_checksum() const override { return trailer_.checksum; }
  bool failed() const override { return image_->failed(); }
  void forget_pages() const override { image_->forget_pages(); }

  bool has_section(SectionTag tag) const override { return find(tag) != nullptr; }

  std::vector<SectionPlace> places() const override {
    std::vector<SectionPlace> out;
    for (const SectionEntry& entry : sections_) {
      out.push_back({entry.tag, entry.offset, entry.bytes});
    }
    std::sort(out.begin(), out.end(), [](const SectionPlace& a, const SectionPlace& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
    });
    return out;
  }

  Result<Section> section(SectionTag tag) const override {
    const SectionEntry* entry = find(tag);
    if (entry == nullptr) {
      return corruption("segment has no section " + std::to_string(tag) + ": '" + name_ + "'");
    }
    return make_section(this, entry->offset, entry->bytes);
  }

  Status verify() const override {
    for (uint64_t block = 0; block < blocks_of(trailer_.data_bytes); ++block) {
      if (!is_verified(block)) RETURN_IF_ERROR(verify_copy(block).status());
    }
    return Status();
  }

  Result<std::vector<uint64_t>> damaged_blocks(
      const std::function<bool(uint64_t)>& more) const override {
    std::vector<uint64_t> out;
    for (uint64_t block = 0; block < blocks_of(trailer_.data_bytes); ++block) {
      if (!verify_block(block).ok()) out.push_back(block * kBlockBytes);
      if (more && !more(std::min((block + 1) * kBlockBytes, trailer_.data_bytes))) {
        return unavailable("stopped while verifying '" + name_ + "'");
      }
    }
    return out;
  }

 private:
  /// REQUIRES: length > 0.
  Result<Bytes> verified(uint64_t offset, uint64_t length) const override {
    const uint64_t last = (offset + length - 1) / kBlockBytes;
    for (uint64_t block = offset / kBlockBytes; block <= last; ++block) {
      if (!is_verified(block)) [[unlikely]]
        RETURN_IF_ERROR(verify_block(block));
    }
    return bytes_.subspan(offset, length);
  }

  Status read_verified(uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const uint64_t block = offset / kBlockBytes;
      const uint64_t within = offset % kBlockBytes;
      uint64_t size = std::min<uint64_t>(out.size(), kBlockBytes - within);
      if (!is_verified(block)) [[unlikely]] {
        ASSIGN_OR_RETURN(const Bytes copy, verify_copy(block));
        std::memcpy(out.data(), copy.data() + within, size);
      } else {
        // As far as blocks are verified, in one call.
        while (size < out.size() && is_verified((offset + size) / kBlockBytes)) {
          size += std::min<uint64_t>(out.size() - size, kBlockBytes);
        }
        RETURN_IF_ERROR(image_->read_at(offset, out.first(size)));
      }
      out = out.subspan(size);
      offset += size;
    }
    return Status();
  }

  // Relaxed is enough: the bytes are immutable, the bit only saves work.
  bool is_verified(uint64_t block) const {
    return (verified_[block / 64].load(std::memory_order_relaxed) >> (block % 64) & 1) != 0;
  }

  Status verify_block(uint64_t block) const { return check_block(block, bytes_of_block(block)); }

  /// A copy of the block, verified; valid until the next call on this thread.
  Result<Bytes> verify_copy(uint64_t block) const {
    thread_local std::vector<std::byte> copy;
    copy.resize(bytes_of_block(block).size());
    RETURN_IF_ERROR(image_->read_at(block * kBlockBytes, copy));
    RETURN_IF_ERROR(check_block(block, copy));
    return Bytes(copy);
  }

  Bytes bytes_of_block(uint64_t block) const {
    const uint64_t begin = block * kBlockBytes;
    return bytes_.subspan(begin, std::min(kBlockBytes, trailer_.data_bytes - begin));
  }

  /// Notes the block as verified if these bytes, or a copy of them, have its checksum.
  Status check_block(uint64_t block, Bytes bytes) const {
    const uint64_t begin = block * kBlockBytes;
    const uint64_t got = checksum(bytes, checksum_seed(store_id_, id_, block));
    const auto want = read_as<uint64_t>(block_table_.subspan(block * sizeof(uint64_t)));
    if (got != want) return damaged("block checksum differs", begin);
    verified_[block / 64].fetch_or(uint64_t{1} << (block % 64), std::memory_order_relaxed);
    return Status();
  }

  const SectionEntry* find(SectionTag tag) const {
    const auto at = std::lower_bound(
        sections_.begin(), sections_.end(), tag,
        [](const SectionEntry& entry, SectionTag wanted) { return entry.tag < wanted; });
    return at != sections_.end() && at->tag == tag ? &*at : nullptr;
  }

  Status damaged(std::string_view what, uint64_t offset) const {
    return corruption("segment is damaged: " + std::string(what) + ": '" + name_ + "' at offset " +
                      std::to_string(offset));
  }

  Status check_header() const {
    const auto header = read_as<SegmentHeader>(bytes_);
    if (header.magic != kSegmentMagic) return damaged("not a segment file", 0);
    const uint64_t seed = checksum_seed(header.store_id, header.segment_id, kSeedSegmentHeader);
    if (header.checksum != checksum_of(header, seed)) return damaged("header checksum differs", 0);
    if (header.version > kFormatVersion) {
      return corruption("segment was written by a newer version (format " +
                        std::to_string(header.version) + "): '" + name_ + "'");
    }
    const bool zeros = header.reserved == 0 && header.reserved2[0] == 0 &&
                       header.reserved2[1] == 0 && header.reserved2[2] == 0;
    if (header.version < kFormatVersionOldest || !zeros)
      return damaged("header has unknown fields", 0);
    if (header.store_id != store_id_) {
      return corruption("segment belongs to another store: '" + name_ + "'");
    }
    if (header.segment_id != id_) {
      return corruption("segment file has another file's name: '" + name_ + "' is segment " +
                        std::to_string(header.segment_id));
    }
    return Status();
  }

  Status check_trailer(const std::optional<SegmentStamp>& expected) {
    const uint64_t at = bytes_.size() - sizeof(SegmentTrailer);
    trailer_ = read_as<SegmentTrailer>(bytes_.subspan(at));
    if (trailer_.magic != kTrailerMagic) return damaged("file is cut, or not whole", at);
    if (trailer_.checksum != checksum_of(trailer_, checksum_seed(store_id_, id_, kSeedTrailer))) {
      return damaged("trailer checksum differs", at);
    }
    const bool known =
        trailer_.version >= kFormatVersionOldest && trailer_.version <= kFormatVersion;
    if (!known || trailer_.store_id != store_id_ || trailer_.segment_id != id_) {
      return damaged("trailer contradicts the header", at);
    }
    if (trailer_.file_bytes != bytes_.size()) return damaged("file length differs", at);
    if (expected.has_value() && (expected->file_bytes != bytes_.size() ||
                                 expected->trailer_checksum != trailer_.checksum)) {
      return damaged("not the file that the manifest names", at);
    }
    return Status();
  }

  /// Finds where the tables must be when the trailer is lost: the one split of the file into data
  /// and tables under which the first block has the checksum the table gives it.
  bool guess_trailer() {
    // Far more than the kinds of section there are; each guess costs one block.
    constexpr uint32_t kSectionsGuessed = 64;
    const uint64_t room = bytes_.size() - sizeof(SegmentTrailer);
    for (uint32_t sections = 0; sections <= kSectionsGuessed; ++sections) {
      const uint64_t section_bytes = uint64_t{sections} * sizeof(SectionEntry);
      if (section_bytes > room) return false;
      // What is left is the data and eight bytes for each started block of it.
      const uint64_t rest = room - section_bytes;
      const uint64_t whole = rest / (kBlockBytes + sizeof(uint64_t));
      for (uint64_t blocks = std::max<uint64_t>(whole, 1); blocks <= whole + 1; ++blocks) {
        if (blocks * sizeof(uint64_t) >= rest) break;
        const uint64_t data = rest - blocks * sizeof(uint64_t);
        if (data % kSectionAlignment != 0 || blocks_of(data) != blocks) continue;
        const auto want = read_as<uint64_t>(bytes_.subspan(data + section_bytes));
        const Bytes first = bytes_.first(std::min(kBlockBytes, data));
        if (want != checksum(first, checksum_seed(store_id_, id_, 0))) continue;
        trailer_ = SegmentTrailer();
        trailer_.sections_count = sections;
        trailer_.data_bytes = data;
        return true;
      }
    }
    return false;
  }

  /// In salvage the tables may be damaged as long as they make sense: a block whose checksum is
  /// damaged is a damaged block.
  Status read_tables(SegmentOpening opening) {
    const uint64_t at = trailer_.data_bytes;
    const uint64_t room = bytes_.size() - sizeof(SegmentTrailer);
    const uint64_t section_bytes = uint64_t{trailer_.sections_count} * sizeof(SectionEntry);
    // Neither sum can wrap: data_bytes is at most the file's length, the count at most 65,536.
    const bool fits = at >= sizeof(SegmentHeader) && at <= room && at % kSectionAlignment == 0 &&
                      trailer_.sections_count <= kSectionsMax &&
                      at + section_bytes + blocks_of(at) * sizeof(uint64_t) == room;
    if (!fits) return damaged("table sizes contradict the file length", room);
    const Bytes tables = bytes_.subspan(at, room - at);
    if (opening == SegmentOpening::kWhole &&
        checksum(tables, checksum_seed(store_id_, id_, kSeedTables)) != trailer_.tables_checksum) {
      return damaged("table checksum differs", at);
    }
    block_table_ = tables.subspan(section_bytes);
    sections_.reserve(trailer_.sections_count);
    uint64_t end = sizeof(SegmentHeader);
    for (uint64_t i = 0; i < trailer_.sections_count; ++i) {
      const auto entry = read_as<SectionEntry>(tables.subspan(i * sizeof(SectionEntry)));
      // An offset that is right is at most `at`: `end` is, and `at` is aligned.
      const bool good = entry.reserved == 0 && entry.offset == align_up(end, kSectionAlignment) &&
                        entry.bytes <= at - entry.offset;
      if (!good) return damaged("section table is wrong", at + i * sizeof(SectionEntry));
      end = entry.offset + entry.bytes;
      sections_.push_back(entry);
    }
    if (align_up(end, kSectionAlignment) != at) return damaged("data has no section", end);
    const auto by_tag = [](const SectionEntry& a, const SectionEntry& b) { return a.tag < b.tag; };
    std::sort(sections_.begin(), sections_.end(), by_tag);
    const auto same_tag = [](const SectionEntry& a, const SectionEntry& b) {
      return a.tag == b.tag;
    };
    if (std::adjacent_find(sections_.begin(), sections_.end(), same_tag) != sections_.end()) {
      return damaged("two sections have one tag", at);
    }
    return Status();
  }

  // Constant after open.
  const std::unique_ptr<MappedFile> image_;
  const Bytes bytes_;
  const std::string name_;
  const uint64_t store_id_;
  const SegmentId id_;
  SegmentTrailer trailer_;
  std::vector<SectionEntry> sections_;  // by tag
  Bytes block_table_;
  // Own synchronisation.
  mutable std::vector<std::atomic<uint64_t>> verified_;
};

// ---- Where the bytes go ------------------------------------------------------------------------

/// Takes the bytes of a segment being written. Thread safety: single owner.
class SegmentTarget {
 public:
  virtual ~SegmentTarget() = default;  // before `keep`: leaves nothing behind
  virtual Status append(std::span<const Bytes> parts) = 0;
  virtual Result<std::unique_ptr<MappedFile>> finish() = 0;
  /// What was finished stays: it has been given out.
  virtual void keep() {}
};

class FileTarget final : public SegmentTarget {
 public:
  FileTarget(FileSystem* files, std::unique_ptr<WritableFile> file, std::string path)
      : files_(files), file_(std::move(file)), path_(std::move(path)) {}
  FileTarget(const FileTarget&) = delete;
  FileTarget& operator=(const FileTarget&) = delete;
  ~FileTarget() override {
    file_.reset();
    // What cannot be removed now is an orphan, and is removed at the next open.
    if (!kept_) as_memory_allows([this] { static_cast<void>(files_->remove(path_)); });
  }

  /// Takes space for the whole file, where the file system can.
  Status allocate(uint64_t bytes) {
    const Status status = file_->allocate(bytes);
    allocated_ = status.ok();
    return status.code() == Code::kFailedPrecondition ? Status() : status;
  }

  Status append(std::span<const Bytes> parts) override { return file_->append(parts); }

  Result<std::unique_ptr<MappedFile>> finish() override {
    if (allocated_) RETURN_IF_ERROR(file_->truncate(file_->size()));
    RETURN_IF_ERROR(file_->sync());
    file_.reset();
    return files_->map(path_);
  }
  void keep() override { kept_ = true; }

 private:
  FileSystem* files_;
  std::unique_ptr<WritableFile> file_;
  std::string path_;
  bool allocated_ = false;
  bool kept_ = false;
};

/// Aligned as a mapped file is, so that sections begin at cache lines here too.
struct alignas(kSectionAlignment) Line {
  std::array<std::byte, kSectionAlignment> bytes;
};

class HeapImage final : public MappedFile {
 public:
  HeapImage(std::vector<Line> lines, uint64_t size) : lines_(std::move(lines)), size_(size) {}
  Bytes bytes() const override {
    return {reinterpret_cast<const std::byte*>(lines_.data()), size_};
  }

 private:
  const std::vector<Line> lines_;
  const uint64_t size_;
};

class HeapTarget final : public SegmentTarget {
 public:
  Status append(std::span<const Bytes> parts) override {
    for (const Bytes part : parts) {
      if (part.empty()) continue;
      lines_.resize((size_ + part.size() + sizeof(Line) - 1) / sizeof(Line));
      std::memcpy(reinterpret_cast<std::byte*>(lines_.data()) + size_, part.data(), part.size());
      size_ += part.size();
    }
    return Status();
  }
  Result<std::unique_ptr<MappedFile>> finish() override {
    return std::unique_ptr<MappedFile>(std::make_unique<HeapImage>(std::move(lines_), size_));
  }

 private:
  std::vector<Line> lines_;
  uint64_t size_ = 0;
};

// ---- Writing -----------------------------------------------------------------------------------

class BufferedSegmentWriter final : public SegmentWriter {
 public:
  BufferedSegmentWriter(std::unique_ptr<SegmentTarget> target, std::string name, uint64_t store_id,
                        SegmentId id, SegmentFinished finished)
      : target_(std::move(target)),
        name_(std::move(name)),
        store_id_(store_id),
        id_(id),
        finished_(std::move(finished)) {
    SegmentHeader header;
    header.store_id = store_id_;
    header.segment_id = id_;
    header.checksum = checksum_of(header, checksum_seed(store_id_, id_, kSeedSegmentHeader));
    copy(bytes_of(header));
  }

  Status begin_section(SectionTag tag) override {
    RETURN_IF_ERROR(failure_);
    if (sections_.size() == kSectionsMax || !tags_.insert(tag).second) {
      return internal_error(
          "segment section cannot begin: tag " + std::to_string(tag) +
          (sections_.size() == kSectionsMax ? ", too many" : " is there already"));
    }
    RETURN_IF_ERROR(close_section());
    SectionEntry entry;
    entry.tag = tag;
    entry.offset = written_ + buffer_.size();
    sections_.push_back(entry);
    return Status();
  }

  Status append(Bytes bytes) override {
    RETURN_IF_ERROR(failure_);
    if (sections_.empty()) return internal_error("segment bytes before the first section");
    return put(bytes);
  }

  Result<std::shared_ptr<SegmentFile>> finish() override {
    RETURN_IF_ERROR(failure_);
    failure_ = internal_error("segment is finished: " + name_);
    RETURN_IF_ERROR(close_section());
    SegmentTrailer trailer;
    trailer.data_bytes = written_ + buffer_.size();
    if (buffer_.size() % kBlockBytes != 0) close_block(last_block());
    std::string tables;
    for (const SectionEntry& entry : sections_) tables.append(as_text(bytes_of(entry)));
    for (const uint64_t block : block_checksums_) tables.append(as_text(bytes_of(block)));
    trailer.sections_count = static_cast<uint32_t>(sections_.size());
    trailer.store_id = store_id_;
    trailer.segment_id = id_;
    trailer.file_bytes = trailer.data_bytes + tables.size() + sizeof(trailer);
    trailer.tables_checksum =
        checksum(as_bytes_of(tables), checksum_seed(store_id_, id_, kSeedTables));
    trailer.checksum = checksum_of(trailer, checksum_seed(store_id_, id_, kSeedTrailer));
    const Bytes parts[] = {as_bytes_of(buffer_), as_bytes_of(tables), bytes_of(trailer)};
    RETURN_IF_ERROR(target_->append(parts));
    buffer_ = std::string();
    ASSIGN_OR_RETURN(auto image, target_->finish());
    const SegmentStamp stamp{trailer.file_bytes, trailer.checksum};
    ASSIGN_OR_RETURN(auto file, open_segment_image(std::move(image), name_, store_id_, id_, stamp));
    if (finished_) finished_(file);
    target_->keep();
    return file;
  }

 private:
  void copy(Bytes bytes) { buffer_.append(as_text(bytes)); }

  Bytes last_block() const {
    const Bytes all = as_bytes_of(buffer_);
    return all.subspan(all.size() / kBlockBytes * kBlockBytes);
  }

  void close_block(Bytes block) {
    block_checksums_.push_back(
        checksum(block, checksum_seed(store_id_, id_, block_checksums_.size())));
  }

  /// Pads to the alignment of sections and completes the entry of the open one.
  Status close_section() {
    static constexpr std::array<std::byte, kSectionAlignment> kZeros{};
    const uint64_t end = written_ + buffer_.size();
    if (!sections_.empty()) sections_.back().bytes = end - sections_.back().offset;
    return put(Bytes(kZeros).first(align_up(end, kSectionAlignment) - end));
  }

  Status put(Bytes bytes) {
    const size_t room = kBlockBytes - buffer_.size() % kBlockBytes;
    if (bytes.size() < room) {
      copy(bytes);
      return Status();
    }
    copy(bytes.first(room));
    bytes = bytes.subspan(room);
    close_block(as_bytes_of(buffer_).last(kBlockBytes));
    const size_t direct = bytes.size() / kBlockBytes * kBlockBytes;
    if (direct + buffer_.size() >= kWriteBytes) {
      for (size_t at = 0; at < direct; at += kBlockBytes) {
        close_block(bytes.subspan(at, kBlockBytes));
      }
      const Bytes parts[] = {as_bytes_of(buffer_), bytes.first(direct)};
      failure_ = target_->append(parts);
      RETURN_IF_ERROR(failure_);
      written_ += buffer_.size() + direct;
      buffer_.clear();
      copy(bytes.subspan(direct));
      return Status();
    }
    for (size_t at = 0; at < direct; at += kBlockBytes) {
      close_block(bytes.subspan(at, kBlockBytes));
    }
    copy(bytes);
    return Status();
  }

  const std::unique_ptr<SegmentTarget> target_;
  const std::string name_;
  const uint64_t store_id_;
  const SegmentId id_;
  const SegmentFinished finished_;
  Status failure_;        // the first error; everything after it fails too
  std::string buffer_;    // begins at a block boundary of the file
  uint64_t written_ = 0;  // bytes handed to the target
  std::vector<uint64_t> block_checksums_;
  std::vector<SectionEntry> sections_;
  std::set<SectionTag> tags_;
};

}  // namespace

// ---- Front door --------------------------------------------------------------------------------

Status Section::check_range(uint64_t offset, uint64_t length) const {
  if (length <= size_ && offset <= size_ - length) [[likely]]
    return Status();
  return corruption("range is beyond its section: offset " + std::to_string(offset) + ", length " +
                    std::to_string(length) + ", section has " + std::to_string(size_) + " bytes");
}

Result<Bytes> Section::bytes(uint64_t offset, uint64_t length) const {
  RETURN_IF_ERROR(check_range(offset, length));
  if (length == 0) return Bytes();
  return file_->verified(offset_ + offset, length);
}

Status Section::read(uint64_t offset, std::span<std::byte> out) const {
  RETURN_IF_ERROR(check_range(offset, out.size()));
  return out.empty() ? Status() : file_->read_verified(offset_ + offset, out);
}

Section SegmentFile::make_section(const SegmentFile* file, uint64_t offset, uint64_t size) {
  Section section;
  section.file_ = file;
  section.offset_ = offset;
  section.size_ = size;
  return section;
}

Result<std::unique_ptr<SegmentWriter>> create_segment_file(FileSystem* files,
                                                           const std::string& dir,
                                                           uint64_t store_id, SegmentId id,
                                                           SegmentFinished finished,
                                                           uint64_t bytes_expected) {
  std::string path = dir + "/" + segment_name(id);
  ASSIGN_OR_RETURN(auto file, files->create(path));
  auto target = std::make_unique<FileTarget>(files, std::move(file), path);
  if (bytes_expected != 0) RETURN_IF_ERROR(target->allocate(bytes_expected));
  return std::unique_ptr<SegmentWriter>(std::make_unique<BufferedSegmentWriter>(
      std::move(target), std::move(path), store_id, id, std::move(finished)));
}

std::unique_ptr<SegmentWriter> create_segment_on_heap(SegmentId id, SegmentFinished finished) {
  return std::make_unique<BufferedSegmentWriter>(std::make_unique<HeapTarget>(), segment_name(id),
                                                 0, id, std::move(finished));
}

Result<std::shared_ptr<SegmentFile>> open_segment_image(std::unique_ptr<MappedFile> image,
                                                        std::string name, uint64_t store_id,
                                                        SegmentId id,
                                                        const std::optional<SegmentStamp>& expected,
                                                        SegmentOpening opening) {
  auto file = std::make_shared<SegmentImage>(std::move(image), std::move(name), store_id, id);
  RETURN_IF_ERROR(file->open(expected, opening));
  return std::shared_ptr<SegmentFile>(std::move(file));
}

Result<std::shared_ptr<SegmentFile>> open_segment_file(FileSystem* files, const std::string& dir,
                                                       uint64_t store_id, SegmentId id,
                                                       const std::optional<SegmentStamp>& expected,
                                                       SegmentOpening opening) {
  std::string path = dir + "/" + segment_name(id);
  ASSIGN_OR_RETURN(auto image, files->map(path));
  return open_segment_image(std::move(image), std::move(path), store_id, id, expected, opening);
}

}  // namespace aionbd

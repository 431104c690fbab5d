// An immutable file of named, checksummed sections, readable in place.
//
// Every 64 KiB block of the file has a checksum; a block is verified the first time any byte of it
// is asked for and never again, so opening a file costs its tables, not its size, and still no byte
// is interpreted before its checksum is verified. Layout: docs/format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "base/bytes.h"
#include "io/file_system.h"

namespace aionbd {

/// Unique in a store for ever; also the file's name.
using SegmentId = uint64_t;

/// Name of a section within its file; the meaning is the caller's. Persistent.
using SectionTag = uint32_t;

class SegmentFile;

/// One section of an open file. Cheap to copy; valid while the file lives. Thread safety: safe.
class Section {
 public:
  Section() = default;
  uint64_t size() const { return size_; }
  /// Bytes [offset, offset + length), verified. The first touch of a block costs its checksum,
  /// later ones one relaxed load per block. Errors: corruption (block checksum; names file and
  /// offset), also when the range is beyond the section.
  Result<Bytes> bytes(uint64_t offset, uint64_t length) const;
  Result<Bytes> all() const { return bytes(0, size_); }
  /// The same bytes copied to `out` through MappedFile::read_at, so that they do not become
  /// resident: for what lies here and there in a file larger than memory. Errors: also io_error.
  Status read(uint64_t offset, std::span<std::byte> out) const;

 private:
  friend class SegmentFile;
  Status check_range(uint64_t offset, uint64_t length) const;
  const SegmentFile* file_ = nullptr;
  uint64_t offset_ = 0;
  uint64_t size_ = 0;
};

/// Where a section lies in its file.
struct SectionPlace {
  SectionTag tag = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

/// Thread safety: safe.
class SegmentFile {
 public:
  virtual ~SegmentFile() = default;
  virtual SegmentId id() const = 0;
  virtual uint64_t file_bytes() const = 0;
  /// Errors: corruption when the file has no such section.
  virtual Result<Section> section(SectionTag tag) const = 0;
  virtual bool has_section(SectionTag tag) const = 0;
  /// All sections, in file order.
  virtual std::vector<SectionPlace> places() const = 0;
  /// Stands for the whole content: the trailer covers the tables, the tables cover every block.
  virtual uint64_t trailer_checksum() const = 0;
  /// As MappedFile::failed.
  virtual bool failed() const { return false; }
  /// As MappedFile::forget_pages.
  virtual void forget_pages() const {}
  /// Verifies every block not yet verified, through MappedFile::read_at: nothing becomes resident.
  /// Cost: reads the whole file. Errors: corruption, io_error.
  virtual Status verify() const = 0;
  /// Verifies every block and gives the offsets of those that are damaged, instead of stopping at
  /// the first. `more` is told after each block how many bytes were looked at; false stops, with
  /// unavailable. Cost: reads the whole file.
  virtual Result<std::vector<uint64_t>> damaged_blocks(
      const std::function<bool(uint64_t bytes)>& more) const = 0;

 protected:
  friend class Section;
  static Section make_section(const SegmentFile* file, uint64_t offset, uint64_t size);
  virtual Result<Bytes> verified(uint64_t offset, uint64_t length) const = 0;
  virtual Status read_verified(uint64_t offset, std::span<std::byte> out) const = 0;
};

/// Writes one segment file from front to back, buffered. Thread safety: single owner.
/// Destroyed before `finish`: the file is removed.
class SegmentWriter {
 public:
  virtual ~SegmentWriter() = default;
  /// Starts a section; it begins at a multiple of 64 bytes. Tags are unique in a file.
  virtual Status begin_section(SectionTag tag) = 0;
  virtual Status append(Bytes bytes) = 0;
  /// Writes the tables, syncs the file, and opens the result. The file's name is durable, and the
  /// segment lives, only when published.
  virtual Result<std::shared_ptr<SegmentFile>> finish() = 0;
};

// ---- For storage and its tests; others go through Storage ---------------------------------------

/// What the manifest knows of a segment file.
struct SegmentStamp {
  uint64_t file_bytes = 0;
  uint64_t trailer_checksum = 0;
};

/// Called once by `finish`, with the opened file.
using SegmentFinished = std::function<void(const std::shared_ptr<SegmentFile>&)>;

/// Makes the file `segment_name(id)` in `dir`, with space for `bytes_expected`. Every byte is
/// written and synced before the file is mapped: a full disk is an error here, never a fault there.
Result<std::unique_ptr<SegmentWriter>> create_segment_file(FileSystem* files,
                                                           const std::string& dir,
                                                           uint64_t store_id, SegmentId id,
                                                           SegmentFinished finished,
                                                           uint64_t bytes_expected = 0);
/// The same bytes on the heap.
std::unique_ptr<SegmentWriter> create_segment_on_heap(SegmentId id, SegmentFinished finished);

/// What opening asks of a file whose blocks are verified one by one anyway.
enum class SegmentOpening : uint8_t {
  kWhole,    // header, trailer and tables are right
  kSalvage,  // what is left of them must make sense; nothing is read from a block that is damaged
};

/// Errors: not_found; corruption (header, trailer, tables; or not the file that `expected` says).
Result<std::shared_ptr<SegmentFile>> open_segment_file(
    FileSystem* files, const std::string& dir, uint64_t store_id, SegmentId id,
    const std::optional<SegmentStamp>& expected, SegmentOpening opening = SegmentOpening::kWhole);
/// The same for bytes at hand; `name` is for messages.
Result<std::shared_ptr<SegmentFile>> open_segment_image(
    std::unique_ptr<MappedFile> image, std::string name, uint64_t store_id, SegmentId id,
    const std::optional<SegmentStamp>& expected, SegmentOpening opening = SegmentOpening::kWhole);

}  // namespace aionbd

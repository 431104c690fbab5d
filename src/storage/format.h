// Every magic number, version, structure and size on the disk. Mirrors docs/format.md, which is
// written first; nothing else in the program knows an offset.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/bytes.h"
#include "base/checksum.h"

namespace aionbd {

/// What is written, and the oldest that is read; docs/format.md says what each brought.
inline constexpr uint32_t kFormatVersion = 2;
inline constexpr uint32_t kFormatVersionOldest = 1;

// Eight readable bytes, ending in a newline so that text-mode copying damages them.
inline constexpr uint64_t magic_of(const char (&text)[9]) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(text[i])) << (8 * i);
  }
  return value;
}
inline constexpr uint64_t kLogMagic = magic_of("AIONWAL\n");
inline constexpr uint64_t kSegmentMagic = magic_of("AIONSEG\n");
inline constexpr uint64_t kTrailerMagic = magic_of("AIONEND\n");
inline constexpr uint64_t kManifestMagic = magic_of("AIONMAN\n");

// What a checksum is of, as the third word of its seed. Persistent.
inline constexpr uint64_t kSeedLogHeader = 0x4C4F4748;
inline constexpr uint64_t kSeedPayload = 0x50415931;
inline constexpr uint64_t kSeedSegmentHeader = 0x53454748;
inline constexpr uint64_t kSeedTables = 0x53544142;
inline constexpr uint64_t kSeedTrailer = 0x53545241;
inline constexpr uint64_t kSeedManifest = 0x4D414E49;

// ---- Log ---------------------------------------------------------------------------------------

struct LogHeader {
  uint64_t magic = kLogMagic;
  uint32_t version = kFormatVersion;
  uint32_t reserved = 0;
  uint64_t store_id = 0;
  uint64_t first_lsn = 0;
  uint64_t epoch = 0;
  uint64_t reserved2[2] = {0, 0};
  uint64_t checksum = 0;
};
static_assert(sizeof(LogHeader) == 64 && offsetof(LogHeader, checksum) == 56);

/// Persistent, never renumber.
enum class FrameType : uint32_t { kRecord = 1, kSeal = 2, kEpoch = 3 };

struct FrameHeader {
  uint32_t payload_bytes = 0;
  FrameType type = FrameType::kRecord;
  uint64_t lsn = 0;
  uint64_t durable_lsn = 0;
  uint64_t epoch = 0;
  uint64_t payload_checksum = 0;
  uint64_t checksum = 0;
};
static_assert(sizeof(FrameHeader) == 48 && offsetof(FrameHeader, checksum) == 40);

/// The count in an epoch: its upper half; the lower half is random.
inline constexpr uint64_t epoch_count(uint64_t epoch) {
  return epoch >> 32;
}
inline constexpr uint64_t next_epoch(uint64_t epoch, uint64_t random) {
  return (epoch_count(epoch) + 1) << 32 | (random & 0xFFFFFFFF);
}

inline constexpr uint64_t kFrameAlignment = 8;
inline constexpr uint64_t frame_bytes(uint64_t payload_bytes) {
  return sizeof(FrameHeader) +
         (payload_bytes + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

// ---- Segment file ------------------------------------------------------------------------------

/// Bytes under one checksum: small enough that a point read pays little, large enough that the
/// table is 1/8192 of the file.
inline constexpr uint64_t kBlockBytes = uint64_t{64} << 10;
/// One cache line; vectors in a section start aligned for every instruction set.
inline constexpr uint64_t kSectionAlignment = 64;
/// Far above what one segment needs; bounds the table before it is believed.
inline constexpr uint32_t kSectionsMax = 65536;

struct SegmentHeader {
  uint64_t magic = kSegmentMagic;
  uint32_t version = kFormatVersion;
  uint32_t reserved = 0;
  uint64_t store_id = 0;
  uint64_t segment_id = 0;
  uint64_t reserved2[3] = {0, 0, 0};
  uint64_t checksum = 0;
};
static_assert(sizeof(SegmentHeader) == 64 && offsetof(SegmentHeader, checksum) == 56);

struct SectionEntry {
  uint32_t tag = 0;
  uint32_t reserved = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(SectionEntry) == 24);

struct SegmentTrailer {
  uint64_t magic = kTrailerMagic;
  uint32_t version = kFormatVersion;
  uint32_t sections_count = 0;
  uint64_t store_id = 0;
  uint64_t segment_id = 0;
  uint64_t data_bytes = 0;
  uint64_t file_bytes = 0;
  uint64_t tables_checksum = 0;
  uint64_t checksum = 0;
};
static_assert(sizeof(SegmentTrailer) == 64 && offsetof(SegmentTrailer, checksum) == 56);

// ---- Manifest ----------------------------------------------------------------------------------

struct ManifestHeader {
  uint64_t magic = kManifestMagic;
  uint32_t version = kFormatVersion;
  uint32_t reserved = 0;
  uint64_t store_id = 0;
  uint64_t number = 0;
  uint64_t replay_after = 0;
  uint64_t durable_lsn = 0;
  uint64_t segments_count = 0;
  uint64_t catalog_bytes = 0;
};
static_assert(sizeof(ManifestHeader) == 64);

struct ManifestSegment {
  uint64_t id = 0;
  uint64_t file_bytes = 0;
  uint64_t trailer_checksum = 0;
};
static_assert(sizeof(ManifestSegment) == 24);

/// A manifest is read whole before it can be verified, so it has a cap.
inline constexpr uint64_t kManifestBytesMax = uint64_t{1} << 30;

// ---- Structures and bytes ----------------------------------------------------------------------

template <typename T>
Bytes bytes_of(const T& value) {
  static_assert(std::has_unique_object_representations_v<T>, "padding would reach the disk");
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}

/// REQUIRES: bytes.size() >= sizeof(T).
template <typename T>
T read_as(Bytes bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

/// Checksum of all of `value` but its last member, which is the checksum.
template <typename T>
uint64_t checksum_of(const T& value, uint64_t seed) {
  return checksum(bytes_of(value).first(sizeof(T) - sizeof(uint64_t)), seed);
}

// ---- Names -------------------------------------------------------------------------------------

inline constexpr std::string_view kLockName = "LOCK";
inline constexpr std::string_view kReserveName = "RESERVE";
inline constexpr std::string_view kManifestName = "MANIFEST";
inline constexpr std::string_view kTempSuffix = ".tmp";

/// Sixteen lower-case hexadecimal digits.
inline std::string hex16(uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out(16, '0');
  for (size_t i = 0; i < 16; ++i) out[15 - i] = kDigits[(value >> (4 * i)) & 15];
  return out;
}
inline std::optional<uint64_t> parse_hex16(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint64_t>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | digit;
  }
  return value;
}

inline std::string log_name(uint64_t first_lsn) {
  return "wal-" + hex16(first_lsn) + ".log";
}
inline std::string segment_name(uint64_t id) {
  return hex16(id) + ".seg";
}

/// The first lsn in a log file's name; nothing when the name is not one.
inline std::optional<uint64_t> parse_log_name(std::string_view name) {
  if (name.size() != 24 || !name.starts_with("wal-") || !name.ends_with(".log")) {
    return std::nullopt;
  }
  return parse_hex16(name.substr(4, 16));
}
inline std::optional<uint64_t> parse_segment_name(std::string_view name) {
  if (name.size() != 20 || !name.ends_with(".seg")) return std::nullopt;
  return parse_hex16(name.substr(0, 16));
}

}  // namespace aionbd

// See log_reader.h. The hard part is `scan_log`: telling a torn tail (debris of a crash, to be cut)
// from damage of something that was durable (to be refused). A checksum alone cannot tell; the
// durable lsn that every frame carries can.
#include "storage/log_reader.h"

#include <algorithm>
#include <utility>

#include "base/checksum.h"

namespace aionbd {
namespace {

/// One read of the window: large enough that opening the file for each is nothing.
constexpr uint64_t kWindowBytes = uint64_t{4} << 20;

std::string at_offset(const std::string& path, uint64_t offset) {
  return "'" + path + "' at offset " + std::to_string(offset);
}

bool known_type(FrameType type) {
  return type == FrameType::kRecord || type == FrameType::kSeal || type == FrameType::kEpoch;
}

/// What is wrong with a frame of which `left` bytes of the file are left, whatever came before it.
std::string_view misshapen(const FrameHeader& header, uint64_t left) {
  if (!known_type(header.type)) return "frame type is unknown";
  if (header.payload_bytes > kRecordBytesMax || frame_bytes(header.payload_bytes) > left) {
    return "frame is longer than the file";
  }
  if (header.type != FrameType::kRecord && header.payload_bytes != 0) {
    return "frame has a payload it may not have";
  }
  return "";
}

bool all_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Status check_log_header(const LogHeader& header, const std::string& path,
                        std::optional<uint64_t> store_id, std::optional<Lsn> first_lsn) {
  if (header.magic != kLogMagic) return corruption("not a log file: " + at_offset(path, 0));
  const uint64_t seed = checksum_seed(header.store_id, header.first_lsn, kSeedLogHeader);
  if (header.checksum != checksum_of(header, seed)) {
    return corruption("log header checksum differs: " + at_offset(path, 0));
  }
  if (header.version > kFormatVersion) {
    return corruption("log was written by a newer version (format " +
                      std::to_string(header.version) + "): '" + path + "'");
  }
  if (header.version < kFormatVersionOldest || header.reserved != 0 || header.reserved2[0] != 0 ||
      header.reserved2[1] != 0) {
    return corruption("log header has unknown fields: " + at_offset(path, 0));
  }
  if (store_id.has_value() && header.store_id != *store_id)
    return corruption("log belongs to another store: '" + path + "'");
  if (first_lsn.has_value() && header.first_lsn != *first_lsn) {
    return corruption("log file has another file's name: '" + path + "' begins with record " +
                      std::to_string(header.first_lsn));
  }
  return Status();
}

}  // namespace

Result<Bytes> FileWindow::at(uint64_t offset, uint64_t size) {
  const bool inside = offset >= buffer_offset_ && offset - buffer_offset_ <= buffer_.size() &&
                      size <= buffer_.size() - (offset - buffer_offset_);
  if (!inside) {
    const uint64_t want = std::min(std::max(size, kWindowBytes), file_bytes_ - offset);
    ASSIGN_OR_RETURN(buffer_, files_->read_at(path_, offset, want));
    buffer_offset_ = offset;
    if (buffer_.size() < size) return io_error("file became shorter: " + at_offset(path_, offset));
  }
  return as_bytes_of(buffer_).subspan(offset - buffer_offset_, size);
}

LogReader::LogReader(FileWindow window, uint64_t store_id, Lsn first_lsn, uint64_t epoch)
    : window_(std::move(window)),
      store_id_(store_id),
      first_lsn_(first_lsn),
      epoch_(epoch),
      offset_(sizeof(LogHeader)),
      last_lsn_(first_lsn - 1),
      durable_lsn_(first_lsn - 1) {}

Result<LogReader> LogReader::open(FileSystem* files, const std::string& dir, uint64_t store_id,
                                  Lsn first_lsn) {
  return open_checked(files, dir + "/" + log_name(first_lsn), store_id, first_lsn);
}

Result<LogReader> LogReader::open_alone(FileSystem* files, const std::string& path) {
  return open_checked(files, path, std::nullopt, std::nullopt);
}

Result<LogReader> LogReader::open_headless(FileSystem* files, const std::string& dir,
                                           uint64_t store_id, Lsn first_lsn) {
  const std::string path = dir + "/" + log_name(first_lsn);
  ASSIGN_OR_RETURN(const uint64_t file_bytes, files->file_size(path));
  if (file_bytes < sizeof(LogHeader)) return corruption("log header is cut: '" + path + "'");
  LogReader reader(FileWindow(files, path, file_bytes), store_id, first_lsn, 0);
  reader.ended_ = true;
  reader.problem_ = "log header is damaged";
  return reader;
}

Result<LogReader> LogReader::open_checked(FileSystem* files, const std::string& path,
                                          std::optional<uint64_t> store_id,
                                          std::optional<Lsn> first_lsn) {
  ASSIGN_OR_RETURN(const uint64_t file_bytes, files->file_size(path));
  FileWindow window(files, path, file_bytes);
  if (file_bytes < sizeof(LogHeader)) {
    return corruption("log header is cut: '" + path + "' has " + std::to_string(file_bytes) +
                      " bytes");
  }
  ASSIGN_OR_RETURN(const Bytes bytes, window.at(0, sizeof(LogHeader)));
  const auto header = read_as<LogHeader>(bytes);
  RETURN_IF_ERROR(check_log_header(header, path, store_id, first_lsn));
  return LogReader(std::move(window), header.store_id, header.first_lsn, header.epoch);
}

uint64_t LogReader::header_seed(uint64_t offset) const {
  return checksum_seed(store_id_, first_lsn_, offset);
}

Result<std::optional<Frame>> LogReader::next() {
  const auto invalid = [this](std::string_view why) {
    ended_ = true;
    problem_ = why;
    return std::optional<Frame>();
  };
  if (ended_) return std::optional<Frame>();
  const uint64_t left = window_.file_bytes() - offset_;
  if (left == 0) return invalid("");
  if (left < sizeof(FrameHeader)) return invalid("frame header is cut");  // rule 1
  ASSIGN_OR_RETURN(const Bytes header_bytes, window_.at(offset_, sizeof(FrameHeader)));
  const auto header = read_as<FrameHeader>(header_bytes);
  if (header.checksum != checksum_of(header, header_seed(offset_))) {  // rule 2
    return invalid("frame header checksum differs");
  }
  if (const auto why = misshapen(header, left); !why.empty()) return invalid(why);  // rule 3
  const bool record = header.type == FrameType::kRecord;
  if (header.lsn != last_lsn_ + (record ? 1 : 0))
    return invalid("frame is out of order");                                              // rule 4
  if (header.durable_lsn > last_lsn_) return invalid("frame claims the future durable");  // rule 5
  if (header.type != FrameType::kEpoch && header.epoch != epoch_) {                       // rule 6
    return invalid("frame is of a dead epoch");
  }
  ASSIGN_OR_RETURN(const Bytes whole, window_.at(offset_, frame_bytes(header.payload_bytes)));
  const Bytes payload = whole.subspan(sizeof(FrameHeader), header.payload_bytes);
  const uint64_t seed = checksum_seed(store_id_, header.payload_bytes, kSeedPayload);
  if (header.payload_checksum != checksum(payload, seed)) {  // rule 7
    return invalid("frame payload checksum differs");
  }
  if (offset_ != salvaged_offset_ &&
      !all_zero(whole.subspan(sizeof(FrameHeader) + header.payload_bytes))) {
    return invalid("frame padding is not zero");
  }
  offset_ += whole.size();
  last_lsn_ = header.lsn;
  epoch_ = header.epoch;
  durable_lsn_ = std::max(durable_lsn_, header.durable_lsn);
  return std::optional<Frame>(Frame{header, payload});
}

Result<std::optional<uint64_t>> LogReader::find_proof(Lsn lsn) {
  for (uint64_t at = offset_; window_.file_bytes() - at >= sizeof(FrameHeader);
       at += kFrameAlignment) {
    ASSIGN_OR_RETURN(const Bytes bytes, window_.at(at, sizeof(FrameHeader)));
    const auto header = read_as<FrameHeader>(bytes);
    // The cheap tests first: almost no place passes them, so the checksum costs nothing.
    if (!known_type(header.type)) continue;
    const bool says_durable = header.durable_lsn >= lsn && header.durable_lsn <= header.lsn;
    const bool later_epoch =
        header.type != FrameType::kEpoch && epoch_count(header.epoch) > epoch_count(epoch_);
    if (!says_durable && !later_epoch) continue;
    if (header.checksum == checksum_of(header, header_seed(at))) return std::optional<uint64_t>(at);
  }
  return std::optional<uint64_t>();
}

Result<bool> LogReader::skip_damage() {
  if (!ended_ || problem_.empty()) return false;
  for (uint64_t at = offset_; window_.file_bytes() - at >= sizeof(FrameHeader);
       at += kFrameAlignment) {
    const uint64_t left = window_.file_bytes() - at;
    ASSIGN_OR_RETURN(const Bytes bytes, window_.at(at, sizeof(FrameHeader)));
    const auto header = read_as<FrameHeader>(bytes);
    // The cheap tests first, as in find_proof.
    const bool record = header.type == FrameType::kRecord;
    if (!misshapen(header, left).empty() || header.lsn < last_lsn_ + (record ? 1 : 0)) continue;
    if (header.durable_lsn > header.lsn - (record ? 1 : 0)) continue;
    if (epoch_count(header.epoch) < epoch_count(epoch_)) continue;
    if (header.checksum != checksum_of(header, header_seed(at))) continue;
    ASSIGN_OR_RETURN(const Bytes whole, window_.at(at, frame_bytes(header.payload_bytes)));
    const Bytes payload = whole.subspan(sizeof(FrameHeader), header.payload_bytes);
    const uint64_t seed = checksum_seed(store_id_, header.payload_bytes, kSeedPayload);
    if (header.payload_checksum != checksum(payload, seed)) continue;
    offset_ = salvaged_offset_ = at;
    last_lsn_ = header.lsn - (record ? 1 : 0);
    epoch_ = header.epoch;
    ended_ = false;
    problem_.clear();
    return true;
  }
  return false;
}

namespace {

/// Judges the end of one file that `reader` has read to its first invalid frame.
Status judge_tail(LogReader& reader, bool last_file, Lsn durable_floor, LogScan& scan) {
  if (reader.problem().empty()) return Status();
  const Lsn expected = reader.last_lsn() + 1;
  const std::string where = reader.problem() + ": " + at_offset(reader.path(), reader.offset()) +
                            ", record " + std::to_string(expected);
  if (!last_file) return corruption("log is damaged before its last file: " + where);
  if (durable_floor >= expected) {
    return corruption("log is damaged, the manifest says it was durable: " + where);
  }
  ASSIGN_OR_RETURN(const std::optional<uint64_t> proof, reader.find_proof(expected));
  if (proof.has_value()) {
    return corruption("log is damaged, the frame at offset " + std::to_string(*proof) +
                      " says it was durable: " + where);
  }
  scan.discarded_bytes = reader.file_bytes() - reader.offset();
  scan.torn_why = where;
  return Status();
}

/// Drops the files whose records are all at or below `replay_after`.
void drop_obsolete(std::vector<Lsn>& first_lsns, Lsn replay_after) {
  size_t needed = 0;
  while (needed + 1 < first_lsns.size() && first_lsns[needed + 1] <= replay_after + 1) ++needed;
  first_lsns.erase(first_lsns.begin(), first_lsns.begin() + static_cast<ptrdiff_t>(needed));
}

}  // namespace

Result<LogScan> scan_log(FileSystem* files, const std::string& dir, uint64_t store_id,
                         std::vector<Lsn> first_lsns, Lsn replay_after, Lsn durable_floor) {
  LogScan scan;
  scan.replay_after = replay_after;
  drop_obsolete(first_lsns, replay_after);
  if (first_lsns.empty()) return corruption("log is missing: '" + dir + "' has no log file");
  if (first_lsns.front() > replay_after + 1 || first_lsns.front() == 0) {
    return corruption("log is missing its beginning: '" + dir + "/" + log_name(first_lsns.front()) +
                      "' is the first, record " + std::to_string(replay_after + 1) + " is needed");
  }
  scan.last_lsn = first_lsns.front() - 1;
  for (size_t i = 0; i < first_lsns.size(); ++i) {
    const Lsn first_lsn = first_lsns[i];
    const bool last_file = i + 1 == first_lsns.size();
    const std::string path = dir + "/" + log_name(first_lsn);
    if (first_lsn != scan.last_lsn + 1) {
      return corruption("log has a gap: '" + path + "' does not follow record " +
                        std::to_string(scan.last_lsn));
    }
    ASSIGN_OR_RETURN(const uint64_t file_bytes, files->file_size(path));
    scan.files.push_back({first_lsn, file_bytes});
    auto opened = LogReader::open(files, dir, store_id, first_lsn);
    if (!opened.has_value()) {
      const bool debris = opened.error().code() == Code::kCorruption && last_file &&
                          file_bytes <= sizeof(LogHeader) && durable_floor < first_lsn;
      if (!debris) return opened.error();
      scan.last_is_debris = true;
      scan.end_offset = 0;
      scan.durable_lsn = scan.last_lsn;
      break;
    }
    LogReader reader = std::move(opened).value();
    while (true) {
      ASSIGN_OR_RETURN(const std::optional<Frame> frame, reader.next());
      if (!frame.has_value()) break;
    }
    RETURN_IF_ERROR(judge_tail(reader, last_file, durable_floor, scan));
    scan.last_lsn = reader.last_lsn();
    scan.durable_lsn = reader.durable_lsn();
    scan.epoch = reader.epoch();
    scan.end_offset = reader.offset();
  }
  if (scan.last_lsn < durable_floor) {
    return corruption("log ends too early: '" + dir + "/" + log_name(scan.files.back().first_lsn) +
                      "' ends with record " + std::to_string(scan.last_lsn) +
                      ", the manifest says " + std::to_string(durable_floor) + " was durable");
  }
  scan.durable_lsn = std::max(scan.durable_lsn, durable_floor);
  return scan;
}

Status replay_log(FileSystem* files, const std::string& dir, uint64_t store_id, const LogScan& scan,
                  const std::function<Status(Lsn, Bytes)>& apply) {
  Lsn last = scan.files.front().first_lsn - 1;
  for (const LogFile& file : scan.files) {
    if (last == scan.last_lsn) break;
    ASSIGN_OR_RETURN(LogReader reader, LogReader::open(files, dir, store_id, file.first_lsn));
    while (last < scan.last_lsn) {
      ASSIGN_OR_RETURN(const std::optional<Frame> frame, reader.next());
      if (!frame.has_value()) break;
      last = frame->header.lsn;
      if (frame->header.type != FrameType::kRecord || last <= scan.replay_after) continue;
      RETURN_IF_ERROR(apply(last, frame->payload));
    }
  }
  if (last != scan.last_lsn) {
    return corruption("log changed since it was opened: record " + std::to_string(last + 1) +
                      " can no longer be read");
  }
  return Status();
}

}  // namespace aionbd

// Fuzz target: any bytes as a log file. Opening must end in a store that works or in a refusal.
//
// Input: one byte of choices, then the file. With bit 0 the checksums are put right first, or
// hardly any input would get behind them.
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "io/sim_file_system.h"
#include "storage/format.h"
#include "storage/manifest.h"
#include "storage/storage.h"

namespace aionbd {
namespace {

constexpr uint64_t kStore = 42;

template <typename T>
void put(std::string* out, size_t at, const T& value) {
  std::memcpy(out->data() + at, &value, sizeof(T));
}

void repair(std::string* log) {
  if (log->size() < sizeof(LogHeader)) return;
  auto header = read_as<LogHeader>(as_bytes_of(*log));
  header.magic = kLogMagic;
  header.store_id = kStore;
  header.first_lsn = 1;
  header.checksum = checksum_of(header, checksum_seed(kStore, 1, kSeedLogHeader));
  put(log, 0, header);
  size_t at = sizeof(LogHeader);
  while (log->size() - at >= sizeof(FrameHeader)) {
    auto frame = read_as<FrameHeader>(as_bytes_of(*log).subspan(at));
    const uint64_t whole = frame_bytes(frame.payload_bytes);
    if (whole <= log->size() - at) {
      const Bytes payload =
          as_bytes_of(*log).subspan(at + sizeof(FrameHeader), frame.payload_bytes);
      frame.payload_checksum =
          checksum(payload, checksum_seed(kStore, payload.size(), kSeedPayload));
    }
    frame.checksum = checksum_of(frame, checksum_seed(kStore, 1, at));
    put(log, at, frame);
    if (whole > log->size() - at) break;
    at += whole;
  }
}

std::string records_of(Storage& storage) {
  std::string out;
  const Status status = storage.replay([&](Lsn lsn, Bytes record) {
    out += std::to_string(lsn) + ":" + std::string(as_text(record)) + "\n";
    return Status();
  });
  CHECK_TRUE(status.ok());
  return out;
}

Result<std::unique_ptr<Storage>> open(SimFileSystem& files) {
  StorageOptions options;
  options.dir = "s";
  options.files = &files;
  options.clock = &system_clock_source();
  return Storage::open(std::move(options));
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  if (size == 0) return 0;
  const uint8_t choices = data[0];
  std::string log(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((choices & 1) != 0) repair(&log);
  SimFileSystem files;
  CHECK_TRUE(files.make_dirs("s").ok());
  Manifest manifest;
  manifest.store_id = kStore;
  manifest.number = 1;
  manifest.replay_after = (choices & 2) != 0 ? 1 : 0;
  manifest.durable_lsn = manifest.replay_after;
  ManifestStep step;
  CHECK_TRUE(write_manifest(&files, "s", manifest, &step).ok());
  CHECK_TRUE(files.create("s/" + log_name(1)).has_value());
  files.overwrite("s/" + log_name(1), log);
  std::string first;
  {
    auto storage = open(files);
    if (!storage.has_value()) {
      CHECK_TRUE(storage.error().code() == Code::kCorruption);
      CHECK_TRUE(files.read("s/" + log_name(1), UINT64_MAX).value() == log);
      return 0;
    }
    first = records_of(**storage);
    const auto ticket = (*storage)->append("new", (*storage)->generation());
    CHECK_TRUE(ticket.has_value() && (*storage)->commit(*ticket).ok());
    first += std::to_string(ticket->lsn) + ":new\n";
  }
  CHECK_TRUE(records_of(**open(files)) == first);
  return 0;
}

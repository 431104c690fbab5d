// The commit stage against the least it could be: groups of records committed through Storage
// (append + commit, sync on write) and a bare write + fdatasync of the same bytes, alternating in
// one run on one disk. Prints the medians of both and their ratio.
//
//   commit_vs_append DIRECTORY [rounds = 200]
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "io/file_system.h"
#include "storage/storage.h"

namespace {

using aionbd::Result;
using aionbd::Status;
using aionbd::Storage;

struct Shape {
  size_t record_bytes;
  size_t group;  // records committed together
};
/// One row of 784 floats and its header, alone and in a full group; a batch of 256 such rows.
constexpr std::array<Shape, 3> kShapes = {{{3200, 1}, {3200, 16}, {802816, 1}}};
constexpr size_t kWarmUpRounds = 5;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "commit_vs_append: %s\n", what.c_str());
  std::exit(1);
}

void must(const Status& status, const char* what) {
  if (!status.ok()) fail(std::string(what) + ": " + status.to_string());
}

template <typename Call>
double milliseconds(Call call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string random_bytes(size_t size, aionbd::Rng& rng) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>(rng.next());
  return out;
}

void commit(Storage& storage, std::vector<std::string>& records) {
  aionbd::Ticket last;
  for (std::string& record : records) {
    Result<aionbd::Ticket> ticket = storage.append(std::move(record), storage.generation());
    must(ticket.status(), "append");
    last = *ticket;
  }
  must(storage.commit(last), "commit");
}

void write_bare(int file, const std::string& bytes) {
  if (write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    fail("write failed");
  }
  if (fdatasync(file) != 0) fail("fdatasync failed");
}

void measure(const std::string& dir, const Shape& shape, size_t rounds) {
  aionbd::FileSystem& files = aionbd::posix_file_system();
  const std::string name = std::to_string(shape.record_bytes) + "x" + std::to_string(shape.group);
  aionbd::StorageOptions options;
  options.dir = dir + "/commit-" + name;
  options.durability.sync_on_write = true;
  options.files = &files;
  options.clock = &aionbd::system_clock_source();
  Result<std::unique_ptr<Storage>> storage = Storage::open(std::move(options));
  must(storage.status(), "open");
  const std::string path = dir + "/bare-" + name;
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) fail("cannot create a file there");

  aionbd::Rng rng(1);
  const std::string record = random_bytes(shape.record_bytes, rng);
  std::string bytes;
  for (size_t i = 0; i < shape.group; ++i) bytes += record;
  std::vector<double> ours;
  std::vector<double> bare;
  for (size_t round = 0; round < kWarmUpRounds + rounds; ++round) {
    std::vector<std::string> records(shape.group, record);
    // Each goes first every other time: what one leaves to the disk meets the other.
    double bare_ms = 0;
    if (round % 2 == 0) bare_ms = milliseconds([&] { write_bare(file, bytes); });
    const double our_ms = milliseconds([&] { commit(**storage, records); });
    if (round % 2 != 0) bare_ms = milliseconds([&] { write_bare(file, bytes); });
    if (round < kWarmUpRounds) continue;
    ours.push_back(our_ms);
    bare.push_back(bare_ms);
  }
  close(file);
  unlink(path.c_str());
  std::printf(
      "%zu x %zu bytes: commit %.3f ms, write + fdatasync %.3f ms, ratio %.2f (p50 of %zu; "
      "target <= 1.3)\n",
      shape.group, shape.record_bytes, median(ours), median(bare), median(ours) / median(bare),
      rounds);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("give a directory on the disk to measure");
  const size_t rounds = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 200;
  if (rounds == 0) fail("rounds must be at least 1");
  for (const Shape& shape : kShapes) measure(argv[1], shape, rounds);
  return 0;
}

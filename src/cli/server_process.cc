#include "cli/server_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <thread>
#include <utility>

#include "io/file_system.h"

namespace aionbd {
namespace {

/// /proc/PID/status is a page or two.
constexpr uint64_t kStatusBytesMax = uint64_t{64} << 10;

Status failed(std::string_view what) {
  return io_error(std::string(what) + ": " + std::strerror(errno));
}

std::string how_it_ended(int status) {
  return WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status))
                           : fmt::format("signal {}", WTERMSIG(status));
}

/// A line of /proc/PID/status that tells kilobytes. Errors: not_found.
Result<uint64_t> bytes_of_field(std::string_view status, std::string_view field) {
  const size_t at = status.find(field);
  const size_t digits = at == std::string_view::npos ? at : status.find_first_of("0123456789", at);
  if (digits == std::string_view::npos) return not_found("the process is gone");
  uint64_t kilobytes = 0;
  std::from_chars(status.data() + digits, status.data() + status.size(), kilobytes);
  return kilobytes * 1024;
}

}  // namespace

Result<uint16_t> free_loopback_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return failed("cannot make a socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool named = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  if (!named) return failed("cannot find a free port");
  return ntohs(address.sin_port);
}

ServerProcess::ServerProcess(std::string binary, std::string dir, uint16_t port)
    : binary_(std::move(binary)), dir_(std::move(dir)), port_(port) {}

Status ServerProcess::start(const std::vector<std::string>& flags) {
  // Everything the child needs is made before the fork: after it only exec may follow.
  std::vector<std::string> words = {
      binary_, "serve", "--bind", fmt::format("127.0.0.1:{}", port_), "--data-dir", data_dir()};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string path = dir_ + "/server.log";
  const int log = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) return failed("cannot open '" + path + "'");
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    // Should we be killed, it must not go on alone.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    setpgid(0, 0);  // a Ctrl-C is for us; we end it in our own time
    dup2(log, STDERR_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  const Status status = pid_ < 0 ? failed("cannot fork") : Status();
  close(log);
  return status;
}

void ServerProcess::kill_now() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::string ServerProcess::end_if_any() {
  int status = 0;
  if (pid_ <= 0 || waitpid(pid_, &status, WNOHANG) == 0) return {};
  pid_ = -1;
  return how_it_ended(status);
}

int ServerProcess::terminate(std::chrono::seconds time) {
  if (pid_ <= 0) return -1;
  kill(pid_, SIGTERM);
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return -1;
}

Result<ProcessFigures> ServerProcess::figures() const {
  ProcessFigures out;
  const std::string proc = fmt::format("/proc/{}", pid_);
  ASSIGN_OR_RETURN(const std::string status,
                   posix_file_system().read(proc + "/status", kStatusBytesMax));
  ASSIGN_OR_RETURN(out.resident_bytes, bytes_of_field(status, "VmRSS:"));
  ASSIGN_OR_RETURN(out.anonymous_bytes, bytes_of_field(status, "RssAnon:"));
  ASSIGN_OR_RETURN(out.mapped_bytes, bytes_of_field(status, "RssFile:"));
  ASSIGN_OR_RETURN(const std::vector<std::string> open, posix_file_system().list(proc + "/fd"));
  out.descriptors = open.size();
  return out;
}

}  // namespace aionbd

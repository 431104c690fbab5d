#include "server/event_loop.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace aionbd {
namespace {

// Names of our own events, beside those of sockets.
constexpr uint64_t kPosted = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kEnded = kPosted - 1;

void signal(const Descriptor& event) {
  // Fails only when the counter is full, and then it is readable anyway.
  [[maybe_unused]] const int ignored = ::eventfd_write(event.number(), 1);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    number_ = other.release();
  }
  return *this;
}

void Descriptor::close() {
  if (is_open()) ::close(number_);
  number_ = -1;
}

int Descriptor::release() {
  return std::exchange(number_, -1);
}

Status EventLoop::open() {
  epoll_ = Descriptor(::epoll_create1(EPOLL_CLOEXEC));
  posted_event_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ended_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  // Each piece of work wakes one thread, without a read of the counter; the end wakes them all.
  epoll_event posted{EPOLLIN | EPOLLET, {.u64 = kPosted}};
  epoll_event ended{EPOLLIN, {.u64 = kEnded}};
  if (!epoll_.is_open() || !posted_event_.is_open() || !ended_.is_open() ||
      ::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, posted_event_.number(), &posted) != 0 ||
      ::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, ended_.number(), &ended) != 0) {
    return io_error(fmt::format("cannot wait for events: {}", std::strerror(errno)));
  }
  return {};
}

bool EventLoop::watch(int socket, uint64_t id, Readiness readiness, bool watched_before) {
  const uint32_t events = readiness == Readiness::kToRead ? EPOLLIN : EPOLLOUT;
  epoll_event event{events | EPOLLONESHOT, {.u64 = id}};
  const int change = watched_before ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  return ::epoll_ctl(epoll_.number(), change, socket, &event) == 0;
}

void EventLoop::post(Work work) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(work));
  }
  signal(posted_event_);
}

void EventLoop::end() {
  signal(ended_);
}

EventLoop::Work EventLoop::take_posted() {
  Work work;
  MutexLock lock(mutex_);
  if (posted_.empty()) return work;
  work = std::move(posted_.front());
  posted_.pop_front();
  // Two that were posted in a row may have made one event.
  if (!posted_.empty()) signal(posted_event_);
  return work;
}

EventLoop::Event EventLoop::next() {
  Event out;
  while (true) {
    epoll_event event{};
    if (::epoll_wait(epoll_.number(), &event, 1, -1) != 1) continue;  // a signal
    if (event.data.u64 != kPosted && event.data.u64 != kEnded) {
      out.socket = event.data.u64;
      return out;
    }
    out.work = take_posted();
    out.ended = out.work == nullptr && event.data.u64 == kEnded;
    if (out.work != nullptr || out.ended) return out;
  }
}

}  // namespace aionbd

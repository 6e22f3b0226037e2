/* Batches of plain Engine.IO messages to and from WebSocket frames (RFC 6455 section 5), and one frame to many sockets. No state; what
   receives or sends does it once for each descriptor of the caller, and never waits.

   batches.py and runtime/sends.py say what the functions do, and are the reference: what is not the plain case is left to
   Python. */
#include "../../c_module.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define FINAL_TEXT 0x81
#define FINAL_BINARY 0x82
#define MASKED 0x80
#define SIZE_IN_TWO_BYTES 126
#define SIZE_IN_EIGHT_BYTES 127
#define MAX_HEAD 10
#define MESSAGE '4' /* the packet type of a message */
#define RECV_SIZE 65536 /* as connection.py */
#define SEND_SIZE 16384 /* frames up to this size are copied before they are sent */
#define MAX_GATHERED 32 /* messages that are sent from where they are */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* ---- decoding */

struct frame {
    uint8_t first;
    const uint8_t *mask, *payload;
    Py_ssize_t size;
};

/* The masked data frame at the beginning of `data`; 0 if it is another one, or not complete, or larger than `limit`. */
static int
read_frame(const uint8_t *data, Py_ssize_t available, Py_ssize_t limit, struct frame *frame)
{
    Py_ssize_t head = 6;
    if (available < head || !(data[1] & MASKED))
        return 0;
    frame->first = data[0];
    if (frame->first != FINAL_TEXT && frame->first != FINAL_BINARY)
        return 0;
    frame->size = data[1] & ~MASKED;
    if (frame->size == SIZE_IN_EIGHT_BYTES)
        return 0;
    if (frame->size == SIZE_IN_TWO_BYTES) {
        head = 8;
        if (available < head)
            return 0;
        frame->size = data[2] << 8 | data[3];
    }
    frame->mask = data + head - 4;
    frame->payload = data + head;
    return frame->size <= limit && frame->size <= available - head;
}

/* `key` is the mask's four bytes, beginning with the one for the first byte. Returns the bitwise or of all that was written. */
static uint64_t
unmask(uint8_t *target, const uint8_t *source, Py_ssize_t size, const uint8_t key[4])
{
    uint64_t mask, word, seen = 0;
    Py_ssize_t i = 0;
    memcpy(&mask, key, 4);
    memcpy((uint8_t *)&mask + 4, key, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, source + i, 8);
        word ^= mask;
        seen |= word;
        memcpy(target + i, &word, 8);
    }
    for (; i < size; i++) {
        target[i] = source[i] ^ key[i & 3];
        seen |= target[i];
    }
    return seen;
}

/* A str from masked UTF-8. NULL without an exception: it is not UTF-8. */
static PyObject *
masked_text(const uint8_t *source, Py_ssize_t size, const uint8_t key[4])
{
    /* most text is ASCII, and is unmasked into the str itself */
    PyObject *text = PyUnicode_New(size, 127);
    if (text == NULL || size == 0)
        return text;
    uint8_t *bytes = PyUnicode_1BYTE_DATA(text);
    if (!(unmask(bytes, source, size, key) & 0x8080808080808080u))
        return text;
    PyObject *decoded = PyUnicode_DecodeUTF8((const char *)bytes, size, "strict");
    Py_DECREF(text);
    if (decoded == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return decoded;
}

/* The message of a frame. NULL without an exception: it is none, or not UTF-8. */
static PyObject *
message_of(const struct frame *frame)
{
    const uint8_t *mask = frame->mask;
    if (frame->first == FINAL_BINARY) {
        PyObject *data = PyBytes_FromStringAndSize(NULL, frame->size);
        if (data != NULL)
            unmask((uint8_t *)PyBytes_AS_STRING(data), frame->payload, frame->size, mask);
        return data;
    }
    if (frame->size == 0 || (frame->payload[0] ^ mask[0]) != MESSAGE)
        return NULL;
    const uint8_t turned[4] = {mask[1], mask[2], mask[3], mask[0]};
    return masked_text(frame->payload + 1, frame->size - 1, turned);
}

/* Appends the plain messages that `data` begins with. Returns the position of the first frame that is anything else; -1 with an
   exception. */
static Py_ssize_t
take_messages(const uint8_t *data, Py_ssize_t end, PyObject *limit_object, PyObject *messages)
{
    Py_ssize_t position = 0, limit = PyLong_AsSsize_t(limit_object);
    struct frame frame;
    if (limit == -1 && PyErr_Occurred())
        return -1;
    while (read_frame(data + position, end - position, limit, &frame)) {
        PyObject *message = message_of(&frame);
        if (message == NULL)
            return PyErr_Occurred() ? -1 : position;
        int failed = PyList_Append(messages, message);
        Py_DECREF(message);
        if (failed)
            return -1;
        position = frame.payload + frame.size - data;
    }
    return position;
}

static PyObject *
decode_messages(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "decode_messages(data: bytes, limit: int, messages: list)");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(arguments[0]);
    Py_ssize_t position = take_messages(data, PyBytes_GET_SIZE(arguments[0]), arguments[1], arguments[2]);
    return position < 0 ? NULL : PyLong_FromSsize_t(position);
}

/* How many bytes there were in all, and those that nothing has been done with. */
static PyObject *
size_and_rest(Py_ssize_t size, const void *rest, Py_ssize_t rest_size)
{
    PyObject *first = PyLong_FromSsize_t(size), *second = PyBytes_FromStringAndSize(rest, rest_size), *both = NULL;
    if (first != NULL && second != NULL)
        both = PyTuple_Pack(2, first, second);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return both;
}

static PyObject *
receive_messages(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    uint8_t data[RECV_SIZE];
    if (count != 4 || !PyLong_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[2]) || !PyBytes_CheckExact(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "receive_messages(fd: int, limit: int, messages: list, begun: bytes)");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(arguments[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    Py_ssize_t begun = PyBytes_GET_SIZE(arguments[3]);
    if (begun >= RECV_SIZE) {
        PyErr_SetString(PyExc_ValueError, "what has begun leaves no room");
        return NULL;
    }
    memcpy(data, PyBytes_AS_STRING(arguments[3]), (size_t)begun);
    ssize_t size;
    do
        size = recv(fd, data + begun, (size_t)(RECV_SIZE - begun), MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_ssize_t position = take_messages(data, begun + size, arguments[1], arguments[2]);
    return position < 0 ? NULL : size_and_rest(size, data + position, begun + size - position);
}

/* ---- encoding */

static uint8_t *
put_head(uint8_t *target, uint8_t first, Py_ssize_t size)
{
    *target++ = first;
    if (size < SIZE_IN_TWO_BYTES) {
        *target++ = (uint8_t)size;
        return target;
    }
    int bytes = size < 65536 ? 2 : 8;
    *target++ = bytes == 2 ? SIZE_IN_TWO_BYTES : SIZE_IN_EIGHT_BYTES;
    while (bytes--)
        *target++ = (uint8_t)((uint64_t)size >> 8 * bytes);
    return target;
}

/* Whether it is binary, or text whose UTF-8 is in its object. */
static int
is_copied_as_it_is(PyObject *message)
{
    return PyBytes_CheckExact(message) || (PyUnicode_CheckExact(message) && PyUnicode_IS_COMPACT_ASCII(message));
}

/* What of a message can be copied into a frame: itself, or its UTF-8. A new reference; NULL without an exception: it is not
   plain, or has no UTF-8. */
static PyObject *
copyable(PyObject *message)
{
    if (is_copied_as_it_is(message))
        return Py_NewRef(message);
    if (!PyUnicode_CheckExact(message))
        return NULL;
    PyObject *encoded = PyUnicode_AsUTF8String(message);
    if (encoded == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        PyErr_Clear();
    return encoded;
}

static const void *
bytes_of(PyObject *copied, Py_ssize_t *size)
{
    if (PyBytes_CheckExact(copied)) {
        *size = PyBytes_GET_SIZE(copied);
        return PyBytes_AS_STRING(copied);
    }
    *size = PyUnicode_GET_LENGTH(copied);
    return PyUnicode_1BYTE_DATA(copied);
}

/* A whole frame; returns the position behind it. `copied` is the message, or its UTF-8. */
static uint8_t *
put_frame(uint8_t *target, int is_text, PyObject *copied)
{
    Py_ssize_t size;
    const void *source = bytes_of(copied, &size);
    target = put_head(target, is_text ? FINAL_TEXT : FINAL_BINARY, size + is_text);
    if (is_text)
        *target++ = MESSAGE;
    memcpy(target, source, (size_t)size);
    return target + size;
}

/* All of the messages, which `copies` holds in the form in which they are copied. */
static PyObject *
join_frames(PyObject *messages, PyObject *copies, Py_ssize_t room)
{
    PyObject *frames = PyBytes_FromStringAndSize(NULL, room);
    if (frames == NULL)
        return NULL;
    uint8_t *start = (uint8_t *)PyBytes_AS_STRING(frames), *target = start;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(copies); i++)
        target = put_frame(target, PyUnicode_CheckExact(PyTuple_GET_ITEM(messages, i)), PyTuple_GET_ITEM(copies, i));
    _PyBytes_Resize(&frames, target - start);
    return frames;
}

static PyObject *
encode_messages(PyObject *Py_UNUSED(module), PyObject *given)
{
    /* a tuple of our own: nobody can change it meanwhile */
    PyObject *messages = PySequence_Tuple(given);
    if (messages == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(messages), room = 0, size;
    PyObject *frames = NULL, *copies = PyTuple_New(count);
    for (Py_ssize_t i = 0; copies != NULL && i < count; i++) {
        PyObject *copy = copyable(PyTuple_GET_ITEM(messages, i));
        if (copy == NULL)
            goto done;
        PyTuple_SET_ITEM(copies, i, copy);
        bytes_of(copy, &size);
        room += MAX_HEAD + 1 + size;
    }
    if (copies != NULL)
        frames = join_frames(messages, copies, room);
done:
    Py_XDECREF(copies);
    Py_DECREF(messages);
    if (frames == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return frames;
}

/* ---- sending */

struct receiver {
    int descriptor;
    Py_ssize_t sent; /* bytes, or the negative number of an error */
};

static Py_ssize_t
send_once(int descriptor, const char *data, Py_ssize_t size)
{
    ssize_t sent;
    do
        sent = send(descriptor, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* The positions and the results of those that have not accepted all `size` bytes. */
static PyObject *
list_exceptions(const struct receiver *receivers, Py_ssize_t count, Py_ssize_t size)
{
    PyObject *exceptions = PyList_New(0);
    for (Py_ssize_t i = 0; exceptions != NULL && i < count; i++) {
        if (receivers[i].sent == size)
            continue;
        PyObject *pair = Py_BuildValue("(nn)", i, receivers[i].sent);
        if (pair == NULL || PyList_Append(exceptions, pair))
            Py_CLEAR(exceptions);
        Py_XDECREF(pair);
    }
    return exceptions;
}

static PyObject *
send_to_all(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 2 || !PyList_CheckExact(arguments[0]) || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "send_to_all(descriptors: list, data: bytes)");
        return NULL;
    }
    const char *data = PyBytes_AS_STRING(arguments[1]);
    Py_ssize_t count = PyList_GET_SIZE(arguments[0]), size = PyBytes_GET_SIZE(arguments[1]);
    struct receiver *receivers = PyMem_New(struct receiver, count);
    PyObject *exceptions = NULL;
    if (receivers == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        /* an int's own conversion runs no code of others, which could shorten the list */
        PyObject *number = PyList_GET_ITEM(arguments[0], i);
        long descriptor = PyLong_CheckExact(number) ? PyLong_AsLong(number) : -1;
        receivers[i].descriptor = descriptor < 0 || descriptor > INT_MAX ? -1 : (int)descriptor;
        PyErr_Clear();
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        receivers[i].sent = send_once(receivers[i].descriptor, data, size);
    Py_END_ALLOW_THREADS
    exceptions = list_exceptions(receivers, count, size);
    PyMem_Free(receivers);
    return exceptions;
}

/* Frames in pieces, which the kernel puts together: for messages so large that a copy costs more. */
struct gathered {
    struct iovec pieces[2 * MAX_GATHERED];
    uint8_t heads[MAX_GATHERED][MAX_HEAD + 1];
    Py_ssize_t size;
};

/* Gathers the frames of messages that need no encoding. Returns 0 if there is another message, or too many. */
static int
gather_frames(PyObject *messages, struct gathered *frames)
{
    frames->size = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(messages); i++) {
        PyObject *message = PyList_GET_ITEM(messages, i);
        if (i == MAX_GATHERED || !is_copied_as_it_is(message))
            return 0;
        int is_text = PyUnicode_CheckExact(message);
        Py_ssize_t size;
        const void *source = bytes_of(message, &size);
        uint8_t *end = put_head(frames->heads[i], is_text ? FINAL_TEXT : FINAL_BINARY, size + is_text);
        if (is_text)
            *end++ = MESSAGE;
        frames->pieces[2 * i] = (struct iovec){frames->heads[i], (size_t)(end - frames->heads[i])};
        frames->pieces[2 * i + 1] = (struct iovec){(void *)source, (size_t)size};
        frames->size += end - frames->heads[i] + size;
    }
    return 1;
}

/* Sends what was gathered of `count` messages, with one system call. */
static PyObject *
send_gathered(int fd, struct gathered *frames, Py_ssize_t count)
{
    struct msghdr parts = {.msg_iov = frames->pieces, .msg_iovlen = (size_t)(2 * count)};
    ssize_t sent;
    do
        sent = sendmsg(fd, &parts, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_ssize_t skipped = sent < 0 ? 0 : sent;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, frames->size - skipped), *result = NULL;
    if (rest == NULL)
        return NULL;
    char *target = PyBytes_AS_STRING(rest);
    for (Py_ssize_t i = 0; i < 2 * count; i++) {
        Py_ssize_t size = (Py_ssize_t)frames->pieces[i].iov_len, taken = skipped < size ? skipped : size;
        memcpy(target, (char *)frames->pieces[i].iov_base + taken, (size_t)(size - taken));
        target += size - taken;
        skipped -= taken;
    }
    PyObject *whole = PyLong_FromSsize_t(frames->size);
    if (whole != NULL)
        result = PyTuple_Pack(2, whole, rest);
    Py_XDECREF(whole);
    Py_DECREF(rest);
    return result;
}

/* Writes the frames of messages that need no encoding to `target`. Returns their size; -1: there is another message, or no room. */
static Py_ssize_t
put_plain_frames(PyObject *messages, uint8_t *target, Py_ssize_t room)
{
    uint8_t *start = target;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(messages); i++) {
        PyObject *message = PyList_GET_ITEM(messages, i);
        if (!is_copied_as_it_is(message))
            return -1;
        Py_ssize_t size;
        bytes_of(message, &size);
        if (size > room - (target - start) - MAX_HEAD - 1)
            return -1;
        target = put_frame(target, PyUnicode_CheckExact(message), message);
    }
    return target - start;
}

/* The same for messages that were copied into one piece. */
static PyObject *
send_copied(int fd, const uint8_t *data, Py_ssize_t size)
{
    Py_ssize_t sent = send_once(fd, (const char *)data, size);
    if (sent == -EAGAIN || sent == -EWOULDBLOCK)
        sent = 0;
    if (sent < 0) {
        errno = (int)-sent;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return size_and_rest(size, data + sent, size - sent);
}

static PyObject *
send_messages(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    union {
        uint8_t copied[SEND_SIZE];
        struct gathered gathered;
    } frames;
    if (count != 2 || !PyLong_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "send_messages(fd: int, messages: list)");
        return NULL;
    }
    int fd = (int)PyLong_AsLong(arguments[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    Py_ssize_t size = put_plain_frames(arguments[1], frames.copied, sizeof frames.copied);
    if (size >= 0)
        return send_copied(fd, frames.copied, size);
    /* sendmsg calls no code of others: the list keeps the messages meanwhile */
    if (gather_frames(arguments[1], &frames.gathered))
        return send_gathered(fd, &frames.gathered, PyList_GET_SIZE(arguments[1]));
    PyObject *encoded = encode_messages(NULL, arguments[1]);
    if (encoded == NULL || encoded == Py_None)
        return encoded;
    PyObject *result = send_copied(fd, (const uint8_t *)PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded));
    Py_DECREF(encoded);
    return result;
}

/* ---- the module */

static PyMethodDef functions[] = {
    {"decode_messages", (PyCFunction)(void (*)(void))decode_messages, METH_FASTCALL, NULL},
    {"encode_messages", encode_messages, METH_O, NULL},
    {"send_to_all", (PyCFunction)(void (*)(void))send_to_all, METH_FASTCALL, NULL},
    {"receive_messages", (PyCFunction)(void (*)(void))receive_messages, METH_FASTCALL, NULL},
    {"send_messages", (PyCFunction)(void (*)(void))send_messages, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {LAST_SLOTS};

MODULE(c_batches, "engineio_wsgi.protocol.websocket.c_batches", functions, slots)

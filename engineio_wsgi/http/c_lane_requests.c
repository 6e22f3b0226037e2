/* The comparison of a request with an earlier one. lane_requests.py says what the function does, and is the reference. No state. */
#include "../c_module.h"
#include <string.h>

#define MAX_DIGITS 9 /* of a body's length */

/* What is left of a request. */
struct text {
    const char *at, *end;
};

/* Takes `expected` away, if the text begins with it. */
static int
skip(struct text *text, const char *expected, Py_ssize_t size)
{
    if (text->end - text->at < size || memcmp(text->at, expected, (size_t)size))
        return 0;
    text->at += size;
    return 1;
}

#define SKIP(text, literal) skip(text, literal, (Py_ssize_t)sizeof(literal) - 1)

static int
is_in_word(char byte)
{
    return ('a' <= byte && byte <= 'z') || ('A' <= byte && byte <= 'Z') || ('0' <= byte && byte <= '9') || byte == '_' ||
           byte == '.' || byte == '~' || byte == '-';
}

/* Takes letters, digits and ``_.~-`` away. Returns how many. */
static Py_ssize_t
skip_word(struct text *text)
{
    const char *start = text->at;
    while (text->at < text->end && is_in_word(*text->at))
        text->at++;
    return text->at - start;
}

/* Takes the engine's part of a request line away, as engine.io-client sends it. Returns the size of the session id, and where it
   begins and the revision; 0 if it is something else. */
static Py_ssize_t
skip_query(struct text *text, const char **sid, long *revision)
{
    if (!SKIP(text, "EIO=") || text->at == text->end || (*text->at != '3' && *text->at != '4'))
        return 0;
    *revision = *text->at++ - '0';
    if (!SKIP(text, "&transport=polling"))
        return 0;
    for (;;) {
        if (SKIP(text, "&t="))
            skip_word(text);
        else if (!SKIP(text, "&b64=1"))
            break;
    }
    if (!SKIP(text, "&sid="))
        return 0;
    *sid = text->at;
    Py_ssize_t size = skip_word(text);
    if (SKIP(text, "&t="))
        skip_word(text);
    if (!SKIP(text, " HTTP/1.1") || text->end - text->at < 2 || memcmp(text->at, "\r\n", 2))
        return 0;
    return size;
}

/* Takes a number without leading zeros away, which a line break follows; 0 if there is none. */
static long
skip_length(struct text *text)
{
    long length = 0;
    const char *start = text->at;
    if (text->at < text->end && *text->at == '0')
        return 0;
    while (text->at < text->end && text->at - start < MAX_DIGITS && '0' <= *text->at && *text->at <= '9')
        length = 10 * length + (*text->at++ - '0');
    return text->end - text->at >= 2 && !memcmp(text->at, "\r\n", 2) ? length : 0;
}

static PyObject *
match(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    int wrong = count != 4;
    for (Py_ssize_t i = 0; !wrong && i < count; i++)
        wrong = !PyBytes_CheckExact(arguments[i]);
    if (wrong) {
        PyErr_SetString(PyExc_TypeError, "match(data: bytes, beginning: bytes, fields: bytes, rest: bytes)");
        return NULL;
    }
    const char *data = PyBytes_AS_STRING(arguments[0]), *sid = data;
    struct text text = {data, data + PyBytes_GET_SIZE(arguments[0])};
    long revision = 0, length = 0;
    if (!skip(&text, PyBytes_AS_STRING(arguments[1]), PyBytes_GET_SIZE(arguments[1])))
        Py_RETURN_NONE;
    Py_ssize_t sid_size = skip_query(&text, &sid, &revision);
    if (!sid_size)
        Py_RETURN_NONE;
    Py_ssize_t line_size = text.at - data;
    if (!skip(&text, PyBytes_AS_STRING(arguments[2]), PyBytes_GET_SIZE(arguments[2])))
        Py_RETURN_NONE;
    if (PyBytes_GET_SIZE(arguments[3])) {
        length = skip_length(&text);
        if (!length || !skip(&text, PyBytes_AS_STRING(arguments[3]), PyBytes_GET_SIZE(arguments[3])))
            Py_RETURN_NONE;
    }
    return Py_BuildValue("s#lnnl", sid, sid_size, revision, line_size, text.at - data, length);
}

static PyMethodDef functions[] = {
    {"match", (PyCFunction)(void (*)(void))match, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {LAST_SLOTS};

MODULE(c_lane_requests, "engineio_wsgi.http.c_lane_requests", functions, slots)
